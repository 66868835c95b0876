#include "ops/gemm/stored_matrix.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::ops {
namespace {

// Calls f(part, row of the part, rows, rows before) for the parts that rows [first, first + count) lie in.
template <class F>
void for_parts(const StoredMatrix& w, int64_t first, int64_t count, F&& f) {
  int64_t done = 0;
  for (const StoredMatrix::Part& part : w.parts) {
    if (done == count) return;
    if (first < part.rows()) {
      const int64_t n = std::min(count - done, part.rows() - first);
      f(part, first, n, done);
      done += n;
      first = 0;
    } else {
      first -= part.rows();
    }
  }
}

// out [n, cols] = columns [r, r + n) of t, rows [row, row + cols) of them.
void expand_turned(const StoredTensor& t, int64_t r, int64_t row, Mat out) {
  WorkerScratch scratch;
  float* tile = scratch.take<float>(out.cols * out.rows);
  kernels::stored_kernels().expand(t, row, out.cols, r, out.rows, tile, out.rows);
  for (int64_t i = 0; i < out.rows; ++i)
    for (int64_t c = 0; c < out.cols; ++c) out.f32(i)[c] = tile[c * out.rows + i];
}

}  // namespace

const StoredMatrix::Part* StoredMatrix::part_of(int64_t& row, int64_t count) const {
  for (const Part& part : parts) {
    if (row < part.rows()) return row + count <= part.rows() ? &part : nullptr;
    row -= part.rows();
  }
  return nullptr;
}

const StoredTensor* plain_part(const StoredMatrix& w, int64_t& row, int64_t count) {
  const StoredMatrix::Part* part = w.part_of(row, count);
  if (!part || part->turned) return nullptr;
  const StoredTensor& t = part->tensor;
  const int bytes = stored_format(t.type).block_bytes;
  const bool plain = t.type == StoredType::f32 || t.type == StoredType::bf16;
  return plain && t.scale_type == ScaleType::none &&
                 reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0
             ? &t
             : nullptr;
}

void StoredMatrix::append(const StoredTensor& tensor, bool turned) {
  const Part part{tensor, turned};
  BK_CHECK(tensor.data != nullptr && tensor.rows >= 0 && tensor.cols >= 0);
  BK_CHECK(parts.empty() || part.cols() == cols);
  const int elements = stored_format(tensor.type).block_elements;
  BK_CHECK(tensor.cols % elements == 0);
  BK_CHECK(tensor.scale_type == ScaleType::none ||
           (tensor.scale && tensor.block_rows > 0 && tensor.block_cols > 0 && tensor.type < StoredType::q4_0 &&
            tensor.block_cols % elements == 0));
  BK_CHECK(!turned || tensor.type != StoredType::fp4);  // whose columns come in pairs
  parts.push_back(part);
  rows += part.rows();
  cols = part.cols();
}

void StoredMatrix::append(const StoredMatrix& below) {
  for (const Part& part : below.parts) append(part.tensor, part.turned);
}

void expand_block(const StoredMatrix& w, int64_t row, int64_t col, Mat out) {
  for_parts(w, row, out.rows, [&](const StoredMatrix::Part& part, int64_t r, int64_t n, int64_t before) {
    if (part.turned) return expand_turned(part.tensor, r, col, out.row_block(before, n));
    kernels::stored_kernels().expand(part.tensor, r, n, col, out.cols, out.f32(before), out.stride);
  });
}

void expand_rows(const StoredMatrix& w, int64_t first, int64_t count, Mat out) {
  check_shape(out, count, w.cols);
  BK_CHECK(first >= 0 && first + count <= w.rows);
  expand_block(w, first, 0, out);
}

void expand(const Exec& exec, const StoredMatrix& w, Mat out) {
  check_shape(out, w.rows, w.cols);
  if (exec.dry() || out.empty()) return;
  const int64_t rows = std::max<int64_t>(1, (1 << 18) / w.cols);
  exec.parallel_for((w.rows + rows - 1) / rows, [&](int64_t task) {
    const int64_t first = task * rows, count = std::min(rows, w.rows - first);
    expand_rows(w, first, count, out.row_block(first, count));
  });
}

}  // namespace birkhoff::ops
