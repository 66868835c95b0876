#include "ops/gemm/stored_matrix.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/gemm/gemm.h"

namespace birkhoff::ops {
namespace {

using kernels::kKBlock;
using kernels::kPanel;

constexpr int64_t kTileCols = 128;  // of 16 rows: 8 KiB of fp32
constexpr int64_t kTileRows = 32;

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

// The one part that the rows lie in and that packing kernels can read as it is, or null; `row` becomes its first row.
const StoredTensor* plain_part(const StoredMatrix& w, int64_t& row, int64_t count) {
  for (const StoredTensor& part : w.parts) {
    if (row >= part.rows) {
      row -= part.rows;
      continue;
    }
    const int bytes = kernels::stored_bits(part.type) / 8;
    const bool plain = part.type == StoredType::f32 || part.type == StoredType::bf16;
    return plain && part.scale_type == ScaleType::none && row + count <= part.rows &&
                   reinterpret_cast<uintptr_t>(part.data) % static_cast<uintptr_t>(bytes) == 0
               ? &part
               : nullptr;
  }
  return nullptr;
}

struct Tile {  // a block of fp32 values on their way into panels
  float* data;
  int64_t stride;
};

void expand_tile(const StoredMatrix& w, int64_t row, int64_t rows, int64_t col, int64_t cols, Tile tile) {
  for_parts(w, row, rows, [&](const StoredTensor& part, int64_t r, int64_t n, int64_t before) {
    kernels::stored_kernels().expand(part, r, n, col, cols, tile.data + before * tile.stride, tile.stride);
  });
}

// One panel of w^T: `rows` <= 16 rows of w from `row` on, columns [k, k + depth).
template <class Out>
void transposed_panel(const StoredMatrix& w, int64_t row, int64_t rows, int64_t k, int64_t depth, Out* panel) {
  const auto& pack = kernels::pack_kernels();
  constexpr bool f32 = std::is_same_v<Out, float>;
  int64_t local = row;
  if (const StoredTensor* part = plain_part(w, local, rows)) {
    if (part->type == StoredType::f32) {
      const float* from = reinterpret_cast<const float*>(part->row(local)) + k;
      if constexpr (f32)
        pack.transposed_f32_to_f32(from, part->cols, rows, depth, panel);
      else
        pack.transposed_f32_to_pairs(from, part->cols, rows, depth, panel);
    } else {
      const bf16* from = reinterpret_cast<const bf16*>(part->row(local)) + k;
      if constexpr (f32)
        pack.transposed_bf16_to_f32(from, part->cols, rows, depth, panel);
      else
        pack.transposed_bf16_to_pairs(from, part->cols, rows, depth, panel);
    }
    return;
  }
  WorkerScratch scratch;
  const Tile tile{scratch.take<float>(kPanel * kTileCols), kTileCols};
  for (int64_t c = 0; c < depth; c += kTileCols) {
    const int64_t n = std::min(kTileCols, depth - c);
    expand_tile(w, row, rows, k + c, n, tile);
    if constexpr (f32)
      pack.transposed_f32_to_f32(tile.data, tile.stride, rows, n, panel + c * kPanel);
    else
      pack.transposed_f32_to_pairs(tile.data, tile.stride, rows, n, panel + c * kPanel);
  }
}

template <class Out>
void panels_of(const Packed& b, int64_t col, int64_t cols, int64_t k, int64_t depth, Out* out, int64_t panel) {
  const StoredMatrix& w = *b.stored;
  if (b.transposed) {
    for (int64_t c = 0; c < cols; c += kPanel)
      transposed_panel(w, b.first_row + col + c, std::min(kPanel, cols - c), k, depth, out + c / kPanel * panel);
    return;
  }
  WorkerScratch scratch;
  const auto& pack = kernels::pack_kernels();
  const Tile tile{scratch.take<float>(kTileRows * cols), cols};
  for (int64_t j = 0; j < depth; j += kTileRows) {
    const int64_t n = std::min(kTileRows, depth - j);
    expand_tile(w, b.first_row + k + j, n, col, cols, tile);
    if constexpr (std::is_same_v<Out, float>)
      pack.rows_f32_to_f32(tile.data, tile.stride, n, cols, out + j * kPanel, panel);
    else
      pack.rows_f32_to_pairs(tile.data, tile.stride, n, cols, out + j * kPanel, panel);
  }
}

}  // namespace

void StoredMatrix::append(const StoredTensor& part) {
  BK_CHECK(part.data != nullptr && part.rows >= 0 && part.cols >= 0);
  BK_CHECK(parts.empty() || part.cols == cols);
  BK_CHECK(part.type != StoredType::fp4 || (part.cols % 2 == 0 && part.block_cols % 2 == 0));
  BK_CHECK(part.scale_type == ScaleType::none || (part.scale && part.block_rows > 0 && part.block_cols > 0));
  parts.push_back(part);
  rows += part.rows;
  cols = part.cols;
}

void expand_rows(const StoredMatrix& w, int64_t first, int64_t count, Mat out) {
  check_shape(out, count, w.cols);
  BK_CHECK(first >= 0 && first + count <= w.rows);
  expand_tile(w, first, count, 0, w.cols, {out.f32(), out.stride});
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

Packed Packed::transposed_rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype) {
  BK_CHECK(first >= 0 && count >= 0 && first + count <= w.rows);
  return {nullptr, dtype, w.cols, count, &w, first, true};
}

Packed Packed::rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype) {
  BK_CHECK(first >= 0 && count >= 0 && first + count <= w.rows);
  return {nullptr, dtype, count, w.cols, &w, first, false};
}

void expand_panels(const Packed& b, int64_t col, int64_t cols, int64_t k, int64_t depth, void* out, int64_t panel) {
  BK_CHECK(col % kPanel == 0 && k % kKBlock == 0 && col + cols <= b.n && k + depth <= b.k);
  if (b.dtype == DType::f32)
    panels_of(b, col, cols, k, depth, static_cast<float*>(out), panel);
  else
    panels_of(b, col, cols, k, depth, static_cast<bf16*>(out), panel);
}

const bf16* bf16_rows(const Packed& b, int64_t col, int64_t cols) {
  if (!b.stored || !b.transposed) return nullptr;
  int64_t row = b.first_row + col;
  const StoredTensor* part = plain_part(*b.stored, row, cols);
  return part && part->type == StoredType::bf16 ? reinterpret_cast<const bf16*>(part->row(row)) : nullptr;
}

}  // namespace birkhoff::ops
