#include "ops/rows/bias.h"

#include <algorithm>

#include "kernels/rows/elementwise.h"
#include "kernels/rows/norm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {

void bias_forward(const Exec& exec, CMat b, Mat x) {
  check_shape(b, 1, x.cols);
  BK_CHECK(b.dtype == f32_t);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::elementwise_kernels();
  for_rows(exec, x.rows, x.cols, 1 << 15, [&](int64_t r) {
    x.dtype == f32_t ? k.add_ff(b.f32(), x.f32(r), x.cols) : k.add_fb(b.f32(), x.b16(r), x.cols);
  });
}

void bias_backward(const Exec& exec, CMat dx, Mat db, Arena& scratch) {
  check_shape(db, 1, dx.cols);
  BK_CHECK(db.dtype == f32_t);
  Arena::Scope scope(scratch);
  const int64_t step = norm_rows_per_task(dx.cols), tasks = div_up(dx.rows, step);
  float* partial = scratch.take<float>(tasks * dx.cols);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::elementwise_kernels();
  exec.parallel_for(tasks, [&](int64_t task) {
    float* sum = partial + task * dx.cols;
    std::fill(sum, sum + dx.cols, 0.f);
    for (int64_t r = task * step; r < std::min(dx.rows, (task + 1) * step); ++r)
      dx.dtype == f32_t ? k.add_ff(dx.f32(r), sum, dx.cols) : k.add_bf(dx.b16(r), sum, dx.cols);
  });
  kernels::norm_kernels().add_parts(partial, tasks, dx.cols, dx.cols, db.f32());
}

}  // namespace birkhoff::ops
