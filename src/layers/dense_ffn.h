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
    explicit Weights(const Spec& s)
        : gate_up({{"gate_proj", s.inter}, {"up_proj", s.inter}}, s.dim),
          down({{"down_proj", s.dim, Role::output_projection}}, s.inter) {}
    int64_t inter() const { return down.in(); }
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.gate_up);
      f(p, w.down);
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
