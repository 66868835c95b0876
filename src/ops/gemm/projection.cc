#include "ops/gemm/projection.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/rows/elementwise.h"
#include "ops/gemm/gemm.h"

namespace birkhoff::ops {
namespace {

// Each weight as two bf16 whose sum has 16 bits: 2^8 times finer than the bf16 states they multiply.
void split_rows(const Exec& exec, CMat fn, Mat split) {
  constexpr int64_t kRows = 8;
  exec.parallel_for((fn.rows + kRows - 1) / kRows, [&](int64_t task) {
    for (int64_t r = task * kRows; r < std::min(fn.rows, (task + 1) * kRows); ++r)
      kernels::elementwise_kernels().split(fn.f32(r), split.b16(r), split.b16(fn.rows + r), fn.cols);
  });
}

}  // namespace

Projection::Projection(const Exec& exec, CMat fn, DType state, bool transposed, Arena& scratch)
    : out_(fn.rows), width_(fn.cols), parts_(state == DType::bf16 && kernels::gemm_kernels().bf16_pairs ? 2 : 1) {
  BK_CHECK(fn.dtype == f32_t);
  const int64_t rows = parts_ * out_;
  forward_ = Packed::take(scratch, parts_ == 2 ? DType::bf16 : DType::f32, width_, rows);
  if (transposed) back_ = Packed::take(scratch, state, out_, width_);
  Arena::Scope scope(scratch);
  CMat parts = fn;  // bf16: high | low, one below the other
  if (parts_ == 2) {
    Mat split = scratch.mat(bf16_t, rows, width_);
    if (!exec.dry()) split_rows(exec, fn, split);
    parts = split;
  }
  pack_transposed(exec, parts, forward_);
  if (transposed) pack(exec, parts.row_block(0, out_), back_);  // a bf16 copy for bf16 states
}

void Projection::forward(CMat x, float* raw) const {
  if (parts_ == 1) {
    gemm_serial(x, forward_, Mat(raw, f32_t, x.rows, out_));
    return;
  }
  WorkerScratch scratch;
  Mat both(scratch.take<float>(x.rows * 2 * out_), f32_t, x.rows, 2 * out_);
  gemm_serial(x, forward_, both);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t o = 0; o < out_; ++o) raw[r * out_ + o] = both.f32(r)[o] + both.f32(r)[out_ + o];
}

void Projection::back(CMat dq, Mat dx) const { gemm_serial(dq, back_, dx); }

}  // namespace birkhoff::ops
