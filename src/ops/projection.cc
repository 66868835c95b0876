#include "ops/projection.h"

#include <algorithm>
#include <cstring>

#include "ops/elementwise.h"

namespace birkhoff::ops {
namespace {

// Two parts whose sum is v to 16 bits: weights are then 2^8 times finer than the bf16 states they multiply.
struct Split {
  bf16 high, low;
  explicit Split(float v) : high(to_bf16(v)), low(to_bf16(v - to_float(high))) {}
};

void split_rows(const Exec& exec, CMat fn, Mat split) {
  exec.parallel_for(fn.rows, [&](int64_t r) {
    for (int64_t c = 0; c < fn.cols; ++c) {
      const Split s(fn.f32(r)[c]);
      split.b16(r)[c] = s.high;
      split.b16(fn.rows + r)[c] = s.low;
    }
  });
}

}  // namespace

Projection::Projection(const Exec& exec, CMat fn, DType state, bool transposed, Arena& scratch)
    : out_(fn.rows), width_(fn.cols), parts_(state == DType::bf16 ? 2 : 1) {
  BK_CHECK(fn.dtype == f32_t);
  const int64_t rows = parts_ * out_;
  forward_ = Packed::take(scratch, state, width_, rows);
  if (transposed) back_ = Packed::take(scratch, state, rows, width_);
  Arena::Scope scope(scratch);
  CMat parts = fn;  // bf16: high | low, one below the other
  if (parts_ == 2) {
    Mat split = scratch.mat(bf16_t, rows, width_);
    if (!exec.dry()) split_rows(exec, fn, split);
    parts = split;
  }
  pack_transposed(exec, parts, forward_);
  if (transposed) pack(exec, parts, back_);
}

void Projection::forward(CMat x, float* raw) const {
  const Exec serial(1);
  if (parts_ == 1) {
    gemm(serial, x, forward_, Mat(raw, f32_t, x.rows, out_));
    return;
  }
  WorkerScratch scratch;
  Mat both(scratch.take<float>(x.rows * 2 * out_), f32_t, x.rows, 2 * out_);
  gemm(serial, x, forward_, both);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t o = 0; o < out_; ++o) raw[r * out_ + o] = both.f32(r)[o] + both.f32(r)[out_ + o];
}

void Projection::back(CMat dq, Mat dx) const {
  const Exec serial(1);
  if (parts_ == 1) {
    gemm(serial, dq, back_, dx);
    return;
  }
  WorkerScratch scratch;
  Mat twice(scratch.take<bf16>(dq.rows * 2 * out_), bf16_t, dq.rows, 2 * out_);
  for (int64_t r = 0; r < dq.rows; ++r) {
    std::copy_n(dq.b16(r), out_, twice.b16(r));
    std::copy_n(dq.b16(r), out_, twice.b16(r) + out_);
  }
  gemm(serial, twice, back_, dx);
}

}  // namespace birkhoff::ops
