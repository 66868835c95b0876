// Products of quantised weights (4 or 8 bits in blocks of 32 along a row) with activations quantised to 8 bits: sums
// within a block are exact integers, so they have the same bits on every instruction set; blocks are added in fp32 from
// first to last.
//
//   c[m, j] = sum over blocks b of (scale of w[j, b] * scale of a[m, b]) * (codes of w[j, b] . codes of a[m, b])
//                                  + minimum of w[j, b] * (scale of a[m, b] * sum of the codes of a[m, b])
//
// A block is one of GGUF files (ggml, docs/gguf.md), which maps onto panels without loss:
//   q4    Q4_0   value = half scale * code, -8..7
//   q8    Q8_0   the same, -128..127
//   q4_1  Q4_1   value = half scale * code, 0..15, + half minimum
//   fp4   MXFP4  value = 2^(scale - 127) * e2m1 (0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives); also FP4 of
//                safetensors with E8M0 scales (models.md G.10)
#pragma once
#include <stdint.h>

#include "kernels/gemm/gemm.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

enum class QuantType : uint8_t { q4, q8, q4_1, fp4 };
inline constexpr int kQuantTypes = 4;

inline constexpr int64_t kQuantBlock = 32;  // weights of a row, and activations of a row, that share a scale

// Weights [n, k] in panels of 16 rows, the last one filled up with zeros: first the codes of all blocks, then the
// scales of all blocks. The codes of a block are 8 groups of 16 rows x 4 columns: q8 one group of 64 bytes after the
// other; 4 bits as the file has them (of q4 with 8 added), group 2i in the low and 2i + 1 in the high half of 64 bytes.
// The scales of a block are 16 halves, of q4_1 16 scales and 16 minima, of fp4 16 bytes.
inline constexpr int64_t quant_code_bytes(QuantType t) { return t == QuantType::q8 ? 512 : 256; }
inline constexpr int64_t quant_scale_bytes(QuantType t) {
  return kPanel * (t == QuantType::fp4 ? 1 : t == QuantType::q4_1 ? 4 : 2);
}
inline constexpr int64_t quant_panel_bytes(QuantType t, int64_t k) {
  return k / kQuantBlock * (quant_code_bytes(t) + quant_scale_bytes(t));
}

// Rows of activations: codes [m, k], and of every block [m, k / 32] the scale, the sum of its numbers as they are
// rounded, and minus 8 times the sum of its codes, from which integer sums start where 8 was added to the weights.
struct QuantRows {
  int8_t* codes = nullptr;
  float* scale = nullptr;
  float* sum = nullptr;
  int32_t* start = nullptr;
};

// c[m, n] = a w^T for the panels of n rows of w. Strides count elements.
struct QuantProduct {
  int64_t m = 0, n = 0, k = 0;
  const uint8_t* panels = nullptr;
  QuantRows a;
  void* c = nullptr;
  int64_t c_row = 0;
  GemmStore store = GemmStore::assign_f32;
  int8_t* signed_codes = nullptr;  // memory for 16 k codes, 64-byte aligned, or null: rows then never go through tiles
};

struct QuantKernels {
  void (*product[kQuantTypes])(const QuantProduct&);  // by QuantType
  // One row of k activations, a multiple of 32: scale = max |x| / 127, codes rounded to nearest even. A block with a
  // number that is not finite has a scale that is not finite either.
  void (*activations_f32)(const float* x, int64_t k, const QuantRows& row);
  void (*activations_bf16)(const bf16* x, int64_t k, const QuantRows& row);
};
BK_DECLARE_TILE_KERNELS(QuantKernels, quant_kernels)

}  // namespace birkhoff::kernels
