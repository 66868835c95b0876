// Matrix product kernels: one block of an output, on one thread. ops/gemm/gemm.h has the formulas and cuts the blocks.
//
// Every kernel sums an output element over k = 0, 1, 2, ... in an order that does not depend on the element's place in
// the block, on the block's size or on where a block is cut along k: a sum that is interrupted and resumed through
// `partial` has the same bits as one that is not.
#pragma once
#include <stdint.h>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

inline constexpr int64_t kPanel = 16;     // columns of a panel of B
inline constexpr int64_t kKBlock = 32;    // rows of B in one AMX tile: bf16 panels are padded to a multiple
inline constexpr int64_t kGemmRows = 32;  // rows and columns of C that a kernel holds at a time, at most

enum class GemmStore : uint8_t { assign_f32, add_f32, assign_bf16 };

// c[m, n] = a[m, k] b[k, n]. Strides count elements.
struct GemmBlock {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // element (i, j) at i * a_row + j; strips: see below
  int64_t a_row = 0;
  const void* b = nullptr;  // row j, column c of panel p at p * b_panel + j * 16 + c (pairs kernels: see below)
  int64_t b_panel = 0;
  void* c = nullptr;
  int64_t c_row = 0;
  GemmStore store = GemmStore::assign_f32;
  // Sums over several calls: all but the last leave them here, all but the first take them up from here. Blocks of
  // kGemmRows columns, rows of a block next to each other: partial_floats() in all, block p at p * partial_block.
  float* partial = nullptr;
  int64_t partial_block = 0;
  bool first = true, last = true;
};

inline int64_t partial_block(int64_t m) { return (m + kGemmRows - 1) / kGemmRows * kGemmRows * kGemmRows; }
inline int64_t partial_floats(int64_t m, int64_t n) { return (n + kGemmRows - 1) / kGemmRows * partial_block(m); }
inline float* partial_at(const GemmBlock& g, int64_t row, int64_t col) {
  return g.partial + col / kGemmRows * g.partial_block + row * kGemmRows + col % kGemmRows;
}

struct GemmKernels {
  // a fp32, b fp32 panels [k][16].
  void (*f32)(const GemmBlock&);
  // a fp32, b bf16 panels of row pairs [k/2][16][2].
  void (*f32_pairs)(const GemmBlock&);
  // a bf16, b bf16 panels of row pairs, zero-padded to a multiple of 32 rows. Null where the processor has no bf16
  // product: callers then widen a and use f32_pairs.
  void (*bf16_pairs)(const GemmBlock&);
  // The same as f32 with a in strips of strip_rows rows: element (i, j) at i / strip_rows * a_row + j * strip_rows + i
  // % strip_rows.
  void (*strips_f32)(const GemmBlock&);
  // One row of A (m = 1, fp32, all of k in one call) against bf16 rows of w [n, k] as they lie in memory, c = a w^T:
  // row j of w at j * b_panel. The sums of f32 and f32_pairs over panels of w^T, bit for bit. Null where panels are as
  // fast or the sums are others.
  void (*row_by_bf16_rows)(const GemmBlock&);
  // Strips out of w [k, m], element (j, i) at j * stride + i: out = w^T. They are strip_floats(k, strip_rows) apart.
  void (*strips_from_f32)(const float* w, int64_t stride, int64_t k, int64_t m, float* out);
  void (*strips_from_bf16)(const bf16* w, int64_t stride, int64_t k, int64_t m, float* out);
  int64_t strip_rows;
};
// One row of a strip to spare: whole vectors are written.
inline int64_t strip_floats(int64_t k, int64_t strip_rows) { return (k + 1) * strip_rows; }
BK_DECLARE_TILE_KERNELS(GemmKernels, gemm_kernels)

// Packing of one panel, or of a few rows. src element (i, j) at i * stride + j.
struct PackKernels {
  // Panels out of w [n, k] and rows [k0, k1) of them: out = w^T. n <= 16 columns per panel; the others become zeros.
  // Panels of bf16 pairs: k0 and the size k rounded up are multiples of 32, rows past k become zeros.
  void (*transposed_f32_to_f32)(const float* w, int64_t stride, int64_t n, int64_t k, float* panel);
  void (*transposed_bf16_to_f32)(const bf16* w, int64_t stride, int64_t n, int64_t k, float* panel);
  void (*transposed_f32_to_pairs)(const float* w, int64_t stride, int64_t n, int64_t k, bf16* panel);
  void (*transposed_bf16_to_pairs)(const bf16* w, int64_t stride, int64_t n, int64_t k, bf16* panel);
  // The same rows [0, k) of all panels of w [k, n]; panel p starts at panels + p * panel_stride.
  void (*rows_f32_to_f32)(const float* w, int64_t stride, int64_t k, int64_t n, float* panels, int64_t panel_stride);
  void (*rows_bf16_to_f32)(const bf16* w, int64_t stride, int64_t k, int64_t n, float* panels, int64_t panel_stride);
  void (*rows_f32_to_pairs)(const float* w, int64_t stride, int64_t k, int64_t n, bf16* panels, int64_t panel_stride);
  void (*rows_bf16_to_pairs)(const bf16* w, int64_t stride, int64_t k, int64_t n, bf16* panels, int64_t panel_stride);
  // out [n, k rounded up to 32] = w^T for w [k, n]; columns past k become zeros.
  void (*transpose_bf16)(const bf16* w, int64_t stride, int64_t k, int64_t n, bf16* out, int64_t out_stride);
  // out [rows, cols] = w as fp32.
  void (*widen)(const bf16* w, int64_t stride, int64_t rows, int64_t cols, float* out, int64_t out_stride);
  // dst[i] += sum over s < parts of src[s * part_stride + i], in the order of s (dst[i] = with add false).
  void (*add_parts)(float* dst, const float* src, int64_t parts, int64_t part_stride, int64_t count, bool add);
};
BK_DECLARE_KERNELS(PackKernels, pack_kernels)

}  // namespace birkhoff::kernels
