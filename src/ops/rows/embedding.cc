#include "ops/rows/embedding.h"

#include <algorithm>

#include "kernels/rows/elementwise.h"

namespace birkhoff::ops {
namespace {
constexpr int64_t kEmbeddingRows = 32, kEmbeddingCols = 64;  // of one task

// out row t = the fp32 row that row(ids[t], buffer of as many floats) returns.
template <class Row>
void copy_rows(const Exec& exec, int64_t vocab, std::span<const int32_t> ids, Mat out, Row&& row) {
  if (exec.dry()) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::elementwise_kernels();
  exec.parallel_for((out.rows + kEmbeddingRows - 1) / kEmbeddingRows, [&](int64_t task) {
    WorkerScratch scratch;
    float* buffer = scratch.take<float>(out.cols);
    for (int64_t t = task * kEmbeddingRows; t < std::min(out.rows, (task + 1) * kEmbeddingRows); ++t) {
      const int32_t id = ids[static_cast<size_t>(t)];
      BK_CHECK(id >= 0 && id < vocab);
      if (out.dtype == f32_t)
        k.copy_ff(row(id, buffer), out.f32(t), out.cols);
      else
        k.copy_fb(row(id, buffer), out.b16(t), out.cols);
    }
  });
}
}  // namespace

void embedding_forward(const Exec& exec, CMat table, std::span<const int32_t> ids, Mat out) {
  check_shape(out, static_cast<int64_t>(ids.size()), table.cols);
  BK_CHECK(table.dtype == f32_t);
  copy_rows(exec, table.rows, ids, out, [&](int32_t id, float*) { return table.f32(id); });
}

void embedding_forward(const Exec& exec, const StoredMatrix& table, std::span<const int32_t> ids, Mat out) {
  check_shape(out, static_cast<int64_t>(ids.size()), table.cols);
  copy_rows(exec, table.rows, ids, out, [&](int32_t id, float* row) {
    expand_rows(table, id, 1, Mat(row, f32_t, 1, table.cols));
    return row;
  });
}

// Every task owns a block of columns and walks all tokens in order: no two tasks touch one element.
void embedding_backward(const Exec& exec, std::span<const int32_t> ids, CMat d_out, Mat d_table) {
  check_shape(d_out, static_cast<int64_t>(ids.size()), d_table.cols);
  BK_CHECK(d_table.dtype == f32_t);
  if (exec.dry() || !d_table.data) return;
  Exec::Span span(exec, Work::elementwise);
  const auto& k = kernels::elementwise_kernels();
  exec.parallel_for((d_table.cols + kEmbeddingCols - 1) / kEmbeddingCols, [&](int64_t task) {
    const int64_t c = task * kEmbeddingCols, n = std::min(kEmbeddingCols, d_table.cols - c);
    for (int64_t t = 0; t < d_out.rows; ++t) {
      const int32_t id = ids[static_cast<size_t>(t)];
      BK_CHECK(id >= 0 && id < d_table.rows);
      if (d_out.dtype == f32_t)
        k.add_ff(d_out.f32(t) + c, d_table.f32(id) + c, n);
      else
        k.add_bf(d_out.b16(t) + c, d_table.f32(id) + c, n);
    }
  });
}

}  // namespace birkhoff::ops
