// A weight matrix [out, in] and the packed copies that multiply by it.
#pragma once
#include <string>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm.h"

namespace birkhoff::layers {

// `w` is the fp32 master (or, in a gradient, the fp32 gradient; then the packed copies stay empty). `forward` packs w^T (y = x w^T) and
// `backward` packs w (dx = dy w), in the compute type. A model that only runs forward leaves `backward` empty.
struct Linear {
  Mat w;
  ops::Packed forward, backward;

  Linear() = default;
  Linear(int64_t out, int64_t in) : w(nullptr, DType::f32, out, in) {}
  int64_t out() const { return w.rows; }
  int64_t in() const { return w.cols; }
  void take_packed(Arena& arena, DType dtype, bool with_backward);
  // Repacks from the master. Call after every change of w.
  void refresh(const Exec& exec) const;
};

// y [T, out] = x w^T.
void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y);
// dx [T, in] = dy w (assigned; skipped when dx is an empty view), grad.w += dy^T x.
void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch);

}  // namespace birkhoff::layers
