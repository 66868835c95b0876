// A whole model by its equations: embedding, sites, collapse, final norm, head, and the training loss. Tensors go by
// their names in a checkpoint.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "reference/hyper_connection.h"
#include "reference/layers.h"
#include "reference/moe.h"

namespace birkhoff::reference {

template <class S>
struct ModelLoss {
  S cross_entropy = 0, z = 0, balance = 0;  // sums over counted tokens; sum over layers
};

struct Model {
  size_t vocab, inter;  // inter: of dense layers
  double norm_eps;
  bool tied;                      // the head is the embedding
  std::vector<bool> has_experts;  // of each layer
  HyperConnection residual;
  std::variant<Mla, Gqa> attention;
  Moe moe;

  // labels: next tokens, negative where ignored.
  template <class S>
  ModelLoss<S> loss(const Tensors<S>& w, const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
                    const Places& at, const std::vector<int32_t>& sequences) const;

 private:
  // Final hidden states [T, D], after the norm.
  template <class S>
  std::vector<S> hidden(const Tensors<S>& w, const std::vector<int32_t>& ids, const Places& at,
                        const std::vector<int32_t>& sequences, S& balance) const;

  template <class S, class F>
  void site(const Tensors<S>& w, std::vector<std::vector<S>>& x, const std::string& hc, const std::string& norm,
            F&& layer) const;
};

}  // namespace birkhoff::reference
