// Movement of rows between tokens and experts: gathers in slot order, no scatter, no atomics.
#include "ops/experts/dispatch.h"

#include <algorithm>
#include <cstring>

#include "kernels/experts/routing.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kTaskRows = 64;
constexpr int64_t kMaxActive = 64;

// rows[r] = x[token of r]
void gather(const Exec& exec, const Routing& r, CMat x, Mat rows) {
  BK_CHECK_EQ(rows.rows, static_cast<int64_t>(r.token.size()));
  BK_CHECK_EQ(rows.cols, x.cols);
  BK_CHECK(rows.dtype == x.dtype);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::routing);
  const int64_t element = dtype_bytes(x.dtype);
  for_rows(exec, rows.rows, 1, kTaskRows, [&](int64_t row) {
    std::memcpy(static_cast<char*>(rows.data) + row * rows.stride * element,
                static_cast<const char*>(x.data) + r.token[static_cast<size_t>(row)] * x.stride * element,
                static_cast<size_t>(x.cols * element));
  });
}

template <class T>
void sum_slots(const Exec& exec, const Routing& r, CMat rows, Mat y, bool accumulate) {
  const int64_t K = r.weights.cols;
  BK_CHECK_LE(K, kMaxActive);
  const auto kernel = [] {
    if constexpr (std::is_same_v<T, float>)
      return kernels::routing_kernels().f32.sum_rows;
    else
      return kernels::routing_kernels().b16.sum_rows;
  }();
  for_rows(exec, y.rows, 1, kTaskRows, [&](int64_t t) {
    const T* slots[kMaxActive];
    for (int64_t k = 0; k < K; ++k) slots[k] = rows.row<T>(r.slot_row[static_cast<size_t>(t * K + k)]);
    kernel(slots, static_cast<int>(K), y.row<T>(t), y.cols, accumulate);
  });
}

void sum_back(const Exec& exec, const Routing& r, CMat rows, Mat y, bool accumulate) {
  BK_CHECK_EQ(rows.rows, static_cast<int64_t>(r.token.size()));
  check_shape(y, r.weights.rows, rows.cols);
  BK_CHECK(rows.dtype == y.dtype);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::routing);
  y.dtype == f32_t ? sum_slots<float>(exec, r, rows, y, accumulate) : sum_slots<bf16>(exec, r, rows, y, accumulate);
}

}  // namespace

void dispatch_forward(const Exec& exec, const Routing& r, CMat x, Mat rows) { gather(exec, r, x, rows); }
void dispatch_backward(const Exec& exec, const Routing& r, CMat d_rows, Mat dx, bool accumulate) {
  sum_back(exec, r, d_rows, dx, accumulate);
}
void combine_forward(const Exec& exec, const Routing& r, CMat rows, Mat y, bool accumulate) {
  sum_back(exec, r, rows, y, accumulate);
}
void combine_backward(const Exec& exec, const Routing& r, CMat dy, Mat d_rows) { gather(exec, r, dy, d_rows); }

void slots_to_rows(const Exec& exec, const Routing& r, CMat slots, Mat rows) {
  check_shape(rows, static_cast<int64_t>(r.token.size()), 1);
  check_shape(slots, r.weights.rows, r.weights.cols);
  if (exec.dry()) return;
  for (int64_t t = 0; t < slots.rows; ++t)
    for (int64_t k = 0; k < slots.cols; ++k)
      *rows.f32(r.slot_row[static_cast<size_t>(t * slots.cols + k)]) = slots.f32(t)[k];
}

void rows_to_slots(const Exec& exec, const Routing& r, CMat rows, Mat slots) {
  check_shape(rows, static_cast<int64_t>(r.token.size()), 1);
  check_shape(slots, r.weights.rows, r.weights.cols);
  if (exec.dry()) return;
  for (int64_t t = 0; t < slots.rows; ++t)
    for (int64_t k = 0; k < slots.cols; ++k)
      slots.f32(t)[k] = *rows.f32(r.slot_row[static_cast<size_t>(t * slots.cols + k)]);
}

}  // namespace birkhoff::ops
