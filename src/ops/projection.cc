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

constexpr int64_t kTaskRows = 256;

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

void Projection::back(const float* dq, int64_t rows, float* dx) const {
  const Exec serial(1);
  const Mat out(dx, f32_t, rows, width_);
  if (parts_ == 1) {
    gemm(serial, CMat(dq, f32_t, rows, out_), back_, out);
    return;
  }
  WorkerScratch scratch;
  Mat a(scratch.take<bf16>(rows * 2 * out_), bf16_t, rows, 2 * out_);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < out_; ++o) a.b16(r)[o] = a.b16(r)[out_ + o] = to_bf16(dq[r * out_ + o]);
  gemm(serial, a, back_, out);
}

void projection_weight_grad(const Exec& exec, CMat dq, CMat x, Mat d_fn, Arena& scratch) {
  if (x.dtype == f32_t) {
    gemm_weight_grad(exec, dq, x, d_fn, scratch);
    return;
  }
  Arena::Scope scope(scratch);
  const int64_t out = dq.cols;
  Mat split = scratch.mat(bf16_t, dq.rows, 2 * out), both = scratch.mat(f32_t, 2 * out, x.cols);
  zero(exec, both);
  exec.parallel_for((dq.rows + kTaskRows - 1) / kTaskRows, [&](int64_t task) {
    for (int64_t r = task * kTaskRows; r < std::min(dq.rows, (task + 1) * kTaskRows); ++r) {
      for (int64_t o = 0; o < out; ++o) {
        const Split s(dq.f32(r)[o]);
        split.b16(r)[o] = s.high;
        split.b16(r)[out + o] = s.low;
      }
    }
  });
  gemm_weight_grad(exec, split, x, both, scratch);
  add(exec, both.row_block(0, out), d_fn);
  add(exec, both.row_block(out, out), d_fn);
}

}  // namespace birkhoff::ops
