// The SwiGLU feed-forward network: down(silu(gate x) * up x). Also the shared experts, which are one wide network.
#pragma once
#include <string>

#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/rows/swiglu.h"

namespace birkhoff::layers {

struct DenseFfn {
  struct Spec {
    using Layer = DenseFfn;
    int64_t dim = 0, inter = 0;
    float limit = ops::kNoLimit;  // clamps gate and up (swiglu_limit)
  };
  struct Weights {
    Linear gate_up;  // [2F, D]: gate above up
    Linear down;     // [D, F]
    Weights() = default;
    explicit Weights(const Spec& s) : gate_up(2 * s.inter, s.dim), down(s.dim, s.inter) {}
    int64_t inter() const { return down.in(); }
    template <class F>
    void for_each(const std::string& p, F&& f) {
      Mat gate = gate_up.w.row_block(0, inter()), up = gate_up.w.row_block(inter(), inter());
      f(p + "gate_proj.weight", gate, Role::matrix);
      gate_up.w.data = gate.data;
      f(p + "up_proj.weight", up, Role::matrix);
      f(p + "down_proj.weight", down.w, Role::output_projection);
    }
    template <class F>
    void for_each_linear(F&& f) {
      f(gate_up);
      f(down);
    }
  };
  struct Saved {
    Mat gu;  // [T, 2F]; silu(gate) * up is rebuilt in backward
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens) {
    return {arena.mat(dtype, tokens, 2 * s.inter)};
  }
  // y [T, D] assigned.
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y);
  // dx [T, D] assigned.
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad);
};

}  // namespace birkhoff::layers
