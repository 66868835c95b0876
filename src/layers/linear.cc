#include "layers/linear.h"

namespace birkhoff::layers {

void Linear::take_packed(Arena& arena, DType dtype, bool with_backward) {
  forward = ops::Packed::take(arena, dtype, w.cols, w.rows);
  if (with_backward) backward = ops::Packed::take(arena, dtype, w.rows, w.cols);
}

void Linear::refresh(const Exec& exec) const {
  ops::pack_transposed(exec, w, forward);
  if (!backward.empty()) ops::pack(exec, w, backward);
}

void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y) { ops::gemm(exec, x, l.forward, y); }

void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch) {
  if (dx.data) ops::gemm(exec, dy, l.backward, dx);
  ops::gemm_weight_grad(exec, dy, x, grad.w, scratch);
}

}  // namespace birkhoff::layers
