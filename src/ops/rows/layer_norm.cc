#include "ops/rows/layer_norm.h"

#include <algorithm>

#include "kernels/rows/layer_norm.h"
#include "kernels/rows/norm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {

void layer_norm_forward(const Exec& exec, CMat x, CMat w, CMat b, float eps, Mat y, Mat stats) {
  check_shape(w, 1, x.cols);
  check_shape(b, 1, x.cols);
  check_shape(y, x.rows, x.cols);
  check_shape(stats, x.rows, 2);
  BK_CHECK(w.dtype == f32_t && b.dtype == f32_t && stats.dtype == f32_t && stats.contiguous() && y.dtype == x.dtype);
  BK_CHECK(eps > 0);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::layer_norm_kernels();
  const auto kernel = x.dtype == f32_t ? k.forward_f32 : k.forward_bf16;
  const int64_t step = norm_rows_per_task(x.cols);
  exec.parallel_for((x.rows + step - 1) / step, [&](int64_t task) {
    const int64_t first = task * step, rows = std::min(step, x.rows - first);
    kernel({x.row_block(first, rows).data, x.stride, w.f32(), b.f32(), eps, y.row_block(first, rows).data, y.stride,
            stats.f32(first), rows, x.cols});
  });
}

void layer_norm_backward(const Exec& exec, CMat x, CMat w, CMat stats, CMat dy, const LayerNormGradients& d,
                         Arena& scratch) {
  const Mat dx = d.dx, dw = d.dw, db = d.db;
  check_shape(w, 1, x.cols);
  check_shape(stats, x.rows, 2);
  check_shape(dy, x.rows, x.cols);
  check_shape(dx, x.rows, x.cols);
  check_shape(dw, 1, x.cols);
  check_shape(db, 1, x.cols);
  BK_CHECK(w.dtype == f32_t && stats.dtype == f32_t && stats.contiguous() && dw.dtype == f32_t && db.dtype == f32_t);
  BK_CHECK(dy.dtype == x.dtype && dx.dtype == x.dtype);
  Arena::Scope scope(scratch);
  const int64_t step = norm_rows_per_task(x.cols), tasks = (x.rows + step - 1) / step, width = 2 * x.cols;
  float* partial = scratch.take<float>(tasks * width);  // dw and db of each task
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::layer_norm_kernels();
  const auto kernel = x.dtype == f32_t ? k.backward_f32 : k.backward_bf16;
  exec.parallel_for(tasks, [&](int64_t task) {
    const int64_t first = task * step, rows = std::min(step, x.rows - first);
    float* sums = partial + task * width;
    kernel({x.row_block(first, rows).data, x.stride, w.f32(), stats.f32(first), dy.row_block(first, rows).data,
            dy.stride, dx.row_block(first, rows).data, dx.stride, sums, sums + x.cols, rows, x.cols});
  });
  kernels::norm_kernels().add_parts(partial, tasks, width, x.cols, dw.f32());
  kernels::norm_kernels().add_parts(partial + x.cols, tasks, width, x.cols, db.f32());
}

}  // namespace birkhoff::ops
