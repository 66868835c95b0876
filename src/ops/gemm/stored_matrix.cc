#include "ops/gemm/stored_matrix.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::ops {
namespace {

// Calls f(part, row of the part, rows, rows before) for the parts that rows [first, first + count) lie in.
template <class F>
void for_parts(const StoredMatrix& w, int64_t first, int64_t count, F&& f) {
  int64_t done = 0;
  for (const StoredTensor& part : w.parts) {
    if (done == count) return;
    if (first < part.rows) {
      const int64_t n = std::min(count - done, part.rows - first);
      f(part, first, n, done);
      done += n;
      first = 0;
    } else {
      first -= part.rows;
    }
  }
}

}  // namespace

const StoredTensor* plain_part(const StoredMatrix& w, int64_t& row, int64_t count) {
  for (const StoredTensor& part : w.parts) {
    if (row >= part.rows) {
      row -= part.rows;
      continue;
    }
    const int bytes = stored_format(part.type).block_bytes;
    const bool plain = part.type == StoredType::f32 || part.type == StoredType::bf16;
    return plain && part.scale_type == ScaleType::none && row + count <= part.rows &&
                   reinterpret_cast<uintptr_t>(part.data) % static_cast<uintptr_t>(bytes) == 0
               ? &part
               : nullptr;
  }
  return nullptr;
}

void StoredMatrix::append(const StoredTensor& part) {
  BK_CHECK(part.data != nullptr && part.rows >= 0 && part.cols >= 0);
  BK_CHECK(parts.empty() || part.cols == cols);
  const int elements = stored_format(part.type).block_elements;
  BK_CHECK(part.cols % elements == 0);
  BK_CHECK(part.scale_type == ScaleType::none || (part.scale && part.block_rows > 0 && part.block_cols > 0 &&
                                                  part.type < StoredType::q4_0 && part.block_cols % elements == 0));
  parts.push_back(part);
  rows += part.rows;
  cols = part.cols;
}

void expand_block(const StoredMatrix& w, int64_t row, int64_t col, Mat out) {
  for_parts(w, row, out.rows, [&](const StoredTensor& part, int64_t r, int64_t n, int64_t before) {
    kernels::stored_kernels().expand(part, r, n, col, out.cols, out.f32(before), out.stride);
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
