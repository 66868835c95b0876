#include "ops/gemm/stored_panels.h"

#include <algorithm>
#include <type_traits>

#include "core/error.h"
#include "core/exec.h"
#include "kernels/gemm/gemm.h"

namespace birkhoff::ops {
namespace {

using kernels::kKBlock;
using kernels::kPanel;

constexpr int64_t kTileCols = 128;  // of 16 rows: 8 KiB of fp32
constexpr int64_t kTileRows = 32;

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
  float* tile = scratch.take<float>(kPanel * kTileCols);
  for (int64_t c = 0; c < depth; c += kTileCols) {
    const int64_t n = std::min(kTileCols, depth - c);
    expand_block(w, row, k + c, Mat(tile, f32_t, rows, n, kTileCols));
    if constexpr (f32)
      pack.transposed_f32_to_f32(tile, kTileCols, rows, n, panel + c * kPanel);
    else
      pack.transposed_f32_to_pairs(tile, kTileCols, rows, n, panel + c * kPanel);
  }
}

template <class Out>
void transposed_panels(const StoredMatrix& w, int64_t row, int64_t cols, int64_t k, int64_t depth, Out* out,
                       int64_t panel) {
  for (int64_t c = 0; c < cols; c += kPanel)
    transposed_panel(w, row + c, std::min(kPanel, cols - c), k, depth, out + c / kPanel * panel);
}

template <class Out>
void panels_of(const Packed& b, int64_t col, int64_t cols, int64_t k, int64_t depth, Out* out, int64_t panel) {
  const StoredMatrix& w = *b.stored;
  if (b.transposed) return transposed_panels(w, b.first_row + col, cols, k, depth, out, panel);
  int64_t row = b.first_row + k;
  if (const StoredMatrix::Part* part = w.part_of(row, depth); part && part->turned) {  // rows of what the file holds
    StoredMatrix as_it_lies;
    as_it_lies.append(part->tensor);
    return transposed_panels(as_it_lies, col, cols, row, depth, out, panel);
  }
  WorkerScratch scratch;
  const auto& pack = kernels::pack_kernels();
  float* tile = scratch.take<float>(kTileRows * cols);
  for (int64_t j = 0; j < depth; j += kTileRows) {
    const int64_t n = std::min(kTileRows, depth - j);
    expand_block(w, b.first_row + k + j, col, Mat(tile, f32_t, n, cols));
    if constexpr (std::is_same_v<Out, float>)
      pack.rows_f32_to_f32(tile, cols, n, cols, out + j * kPanel, panel);
    else
      pack.rows_f32_to_pairs(tile, cols, n, cols, out + j * kPanel, panel);
  }
}

}  // namespace

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
