#include "ops/rows/swiglu.h"

#include <algorithm>

#include "kernels/experts/routing.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kSwigluTaskElements = 1 << 14;

template <class T>
const kernels::FfnRowKernels<T>& table() {
  if constexpr (std::is_same_v<T, float>)
    return kernels::routing_kernels().f32;
  else
    return kernels::routing_kernels().b16;
}

void check(CMat gu, CMat row_weight, CMat h) {
  BK_CHECK_EQ(gu.cols, 2 * h.cols);
  BK_CHECK_EQ(gu.rows, h.rows);
  BK_CHECK(gu.dtype == h.dtype);
  if (row_weight.data) check_shape(row_weight, gu.rows, 1);
}

template <class T>
void forward(const Exec& exec, CMat gu, CMat row_weight, Mat h, float limit) {
  const int64_t F = h.cols;
  for_rows(exec, gu.rows, F, kSwigluTaskElements, [&](int64_t r) {
    table<T>().swiglu(gu.row<T>(r), gu.row<T>(r) + F, row_weight.data ? *row_weight.f32(r) : 1.f, limit, h.row<T>(r),
                      F);
  });
}

template <class T>
void backward(const Exec& exec, CMat gu, CMat row_weight, CMat dh, Mat dgu, Mat d_row_weight, float limit) {
  const int64_t F = dh.cols;
  for_rows(exec, gu.rows, F, kSwigluTaskElements, [&](int64_t r) {
    const float w = row_weight.data ? *row_weight.f32(r) : 1.f;
    const float dot = table<T>().swiglu_backward(gu.row<T>(r), gu.row<T>(r) + F, w, limit, dh.row<T>(r), dgu.row<T>(r),
                                                 dgu.row<T>(r) + F, F);
    if (d_row_weight.data) *d_row_weight.f32(r) = dot;
  });
}

}  // namespace

void swiglu_forward(const Exec& exec, CMat gu, CMat row_weight, Mat h, float limit) {
  check(gu, row_weight, h);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  BK_CHECK(limit > 0);
  gu.dtype == f32_t ? forward<float>(exec, gu, row_weight, h, limit) : forward<bf16>(exec, gu, row_weight, h, limit);
}

void swiglu_backward(const Exec& exec, CMat gu, CMat row_weight, CMat dh, Mat dgu, Mat d_row_weight, float limit) {
  check(gu, row_weight, dh);
  check_shape(dgu, gu.rows, gu.cols);
  BK_CHECK_EQ(row_weight.data != nullptr, d_row_weight.data != nullptr);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  BK_CHECK(limit > 0);
  gu.dtype == f32_t ? backward<float>(exec, gu, row_weight, dh, dgu, d_row_weight, limit)
                    : backward<bf16>(exec, gu, row_weight, dh, dgu, d_row_weight, limit);
}

}  // namespace birkhoff::ops
