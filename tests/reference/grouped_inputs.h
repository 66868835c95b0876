// What Qwen adds between the projections of grouped-query attention and the rotation (models.md A.4): biases, and
// RMSNorm of every query and key head.
#pragma once
#include <string>
#include <vector>

#include "reference/norm.h"
#include "reference/tensors.h"

namespace birkhoff::reference {

struct GroupedInputs {
  bool bias = false, norm = false;
  double eps = 1e-6;

  // q, k and v [T, heads * head_dim], as projected.
  template <class S>
  void apply(const Tensors<S>& w, const std::string& p, std::vector<S>& q, std::vector<S>& k, std::vector<S>& v) const {
    const auto shift = [&](std::vector<S>& x, const char* name) {
      const std::vector<S>& b = w.at(p + name);
      for (size_t i = 0; i < x.size(); ++i) x[i] += b[i % b.size()];
    };
    if (bias) shift(q, "q_proj.bias"), shift(k, "k_proj.bias"), shift(v, "v_proj.bias");
    if (!norm) return;
    q = rms_norm(q, w.at(p + "q_norm.weight"), eps);  // the weight is as long as a head: every head is a row
    k = rms_norm(k, w.at(p + "k_norm.weight"), eps);
  }
};

}  // namespace birkhoff::reference
