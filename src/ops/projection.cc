#include "ops/projection.h"

#include <algorithm>
#include <cstring>

#include "ops/elementwise.h"

namespace birkhoff::ops {
namespace {

// Parts of v whose sum is v to 8, 16 or 24 bits.
struct Split {
  bf16 high, middle, low;
  explicit Split(float v) : high(to_bf16(v)), middle(to_bf16(v - to_float(high))), low(to_bf16(v - to_float(high) - to_float(middle))) {}
};

constexpr int64_t kTaskRows = 256;

}  // namespace

Projection::Projection(const Exec& exec, CMat fn, DType state, bool transposed, Arena& scratch)
    : out_(fn.rows), width_(fn.cols), parts_(state == DType::bf16 ? 3 : 1) {
  BK_CHECK(fn.dtype == f32_t);
  const int64_t rows = parts_ * out_;
  forward_ = Packed::take(scratch, state, width_, rows);
  if (transposed) back_ = Packed::take(scratch, state, rows, width_);
  if (parts_ == 1) {
    pack_transposed(exec, fn, forward_);
    if (transposed) pack(exec, fn, back_);
    return;
  }
  Arena::Scope scope(scratch);
  Mat split = scratch.mat(bf16_t, rows, width_);  // high | middle | low, one below the other
  Mat pairs = scratch.mat(bf16_t, transposed ? rows : 0, width_);  // high | high | middle: what high | low | high of dq multiply
  if (!exec.dry()) {
    exec.parallel_for(out_, [&](int64_t r) {
      for (int64_t c = 0; c < width_; ++c) {
        const Split s(fn.f32(r)[c]);
        split.b16(r)[c] = s.high;
        split.b16(out_ + r)[c] = s.middle;
        split.b16(2 * out_ + r)[c] = s.low;
        if (!transposed) continue;
        pairs.b16(r)[c] = pairs.b16(out_ + r)[c] = s.high;
        pairs.b16(2 * out_ + r)[c] = s.middle;
      }
    });
  }
  pack_transposed(exec, split, forward_);
  if (transposed) pack(exec, pairs, back_);
}

void Projection::forward(CMat x, float* raw) const {
  const Exec serial(1);
  if (parts_ == 1) {
    gemm(serial, x, forward_, Mat(raw, f32_t, x.rows, out_));
    return;
  }
  WorkerScratch scratch;
  Mat wide(scratch.take<float>(x.rows * 3 * out_), f32_t, x.rows, 3 * out_);
  gemm(serial, x, forward_, wide);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t o = 0; o < out_; ++o) raw[r * out_ + o] = wide.f32(r)[o] + (wide.f32(r)[out_ + o] + wide.f32(r)[2 * out_ + o]);
}

void Projection::back(const float* dq, int64_t rows, float* dx) const {
  const Exec serial(1);
  const Mat out(dx, f32_t, rows, width_);
  if (parts_ == 1) {
    gemm(serial, CMat(dq, f32_t, rows, out_), back_, out);
    return;
  }
  WorkerScratch scratch;
  Mat a(scratch.take<bf16>(rows * 3 * out_), bf16_t, rows, 3 * out_);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out_; ++o) {
      const Split s(dq[r * out_ + o]);
      a.b16(r)[o] = a.b16(r)[2 * out_ + o] = s.high;
      a.b16(r)[out_ + o] = s.middle;
    }
  }
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
        split.b16(r)[out + o] = s.middle;
      }
    }
  });
  gemm_weight_grad(exec, split, x, both, scratch);
  add(exec, both.row_block(0, out), d_fn);
  add(exec, both.row_block(out, out), d_fn);
}

}  // namespace birkhoff::ops
