#include "ops/rows/norm.h"

#include <algorithm>

#include "kernels/rows/norm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

// The weight, or nothing: an empty view has no columns.
const float* weight(CMat w) { return w.cols ? w.f32() : nullptr; }
// Blocks of w.cols elements that a row of x consists of.
int64_t heads(CMat x, CMat w) {
  if (w.cols) {
    BK_CHECK_EQ(w.rows, 1);
    BK_CHECK_EQ(x.cols % w.cols, 0);
  }
  BK_CHECK(w.dtype == f32_t);
  return w.cols ? x.cols / w.cols : 1;
}

}  // namespace

void rms_norm_forward(const Exec& exec, CMat x, CMat w, float eps, Mat y, Mat rstd) {
  const int64_t H = heads(x, w);
  check_shape(y, x.rows, x.cols);
  check_shape(rstd, x.rows, H);
  BK_CHECK(rstd.dtype == f32_t && y.dtype == x.dtype);
  BK_CHECK(eps > 0);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::norm_kernels();
  const auto kernel = x.dtype == f32_t ? k.rms_forward_f32 : k.rms_forward_bf16;
  const int64_t step = norm_rows_per_task(x.cols);
  exec.parallel_for((x.rows + step - 1) / step, [&](int64_t task) {
    const int64_t first = task * step, rows = std::min(step, x.rows - first);
    const CMat xs = x.row_block(first, rows);
    const Mat ys = y.row_block(first, rows);
    kernel({xs.data, x.stride, weight(w), eps, ys.data, y.stride, rstd.f32(first), rstd.stride, rows, H, x.cols / H});
  });
}

void rms_norm_backward(const Exec& exec, CMat x, CMat w, CMat rstd, CMat dy, Mat dx, Mat dw, Arena& scratch) {
  const int64_t H = heads(x, w);
  check_shape(dw, w.rows, w.cols);
  check_shape(rstd, x.rows, H);
  check_shape(dy, x.rows, x.cols);
  check_shape(dx, x.rows, x.cols);
  BK_CHECK(rstd.dtype == f32_t && dw.dtype == f32_t);
  BK_CHECK(dy.dtype == x.dtype && dx.dtype == x.dtype);
  Arena::Scope scope(scratch);
  const int64_t step = norm_rows_per_task(x.cols), tasks = (x.rows + step - 1) / step;
  float* partial = scratch.take<float>(tasks * w.cols);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::norm_kernels();
  const auto kernel = x.dtype == f32_t ? k.rms_backward_f32 : k.rms_backward_bf16;
  exec.parallel_for(tasks, [&](int64_t task) {
    const int64_t first = task * step, rows = std::min(step, x.rows - first);
    const Mat dxs = dx.row_block(first, rows);
    kernel({x.row_block(first, rows).data, x.stride, weight(w), rstd.f32(first), rstd.stride,
            dy.row_block(first, rows).data, dy.stride, dxs.data, dx.stride, partial + task * w.cols, rows, H,
            x.cols / H});
  });
  if (w.cols) k.add_parts(partial, tasks, w.cols, w.cols, dw.f32());
}

}  // namespace birkhoff::ops
