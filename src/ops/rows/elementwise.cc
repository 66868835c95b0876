#include "ops/rows/elementwise.h"

#include <algorithm>
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/rows/elementwise.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kCopyTaskElements = 1 << 15;

template <class FF, class FB, class BF, class BB>
void dispatch(const Exec& exec, CMat from, Mat to, FF ff, FB fb, BF bf, BB bb) {
  check_shape(from, to.rows, to.cols);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const bool from_f32 = from.dtype == f32_t, to_f32 = to.dtype == f32_t;
  for_rows(exec, to.rows, to.cols, kCopyTaskElements, [&](int64_t r) {
    if (from_f32 && to_f32)
      ff(from.f32(r), to.f32(r), to.cols);
    else if (from_f32)
      fb(from.f32(r), to.b16(r), to.cols);
    else if (to_f32)
      bf(from.b16(r), to.f32(r), to.cols);
    else
      bb(from.b16(r), to.b16(r), to.cols);
  });
}

}  // namespace

void copy(const Exec& exec, CMat from, Mat to) {
  const auto& k = kernels::elementwise_kernels();
  dispatch(exec, from, to, k.copy_ff, k.copy_fb, k.copy_bf, k.copy_bb);
}

void add(const Exec& exec, CMat from, Mat to) {
  const auto& k = kernels::elementwise_kernels();
  dispatch(exec, from, to, k.add_ff, k.add_fb, k.add_bf, k.add_bb);
}

void add_parts(const Exec& exec, CMat parts, Mat total) {
  BK_CHECK(parts.dtype == f32_t && total.dtype == f32_t && total.contiguous());
  BK_CHECK_LE(total.size(), parts.cols);
  if (exec.dry()) return;
  const int64_t per_task = std::max<int64_t>(1024, kCopyTaskElements / std::max<int64_t>(1, parts.rows));
  exec.parallel_for((total.size() + per_task - 1) / per_task, [&](int64_t task) {
    const int64_t first = task * per_task, count = std::min(per_task, total.size() - first);
    kernels::pack_kernels().add_parts(total.f32() + first, parts.f32() + first, parts.rows, parts.stride, count, true);
  });
}

void scale(const Exec& exec, float factor, Mat m) {
  BK_CHECK(m.dtype == f32_t);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  for_rows(exec, m.rows, m.cols, kCopyTaskElements, [&](int64_t r) {
    float* row = m.f32(r);
    for (int64_t c = 0; c < m.cols; ++c) row[c] *= factor;
  });
}

void zero(const Exec& exec, Mat m) {
  if (exec.dry()) return;
  const int64_t bytes = dtype_bytes(m.dtype);
  for_rows(exec, m.rows, m.cols, kCopyTaskElements, [&](int64_t r) {
    std::memset(static_cast<char*>(m.data) + r * m.stride * bytes, 0, static_cast<size_t>(m.cols * bytes));
  });
}

}  // namespace birkhoff::ops
