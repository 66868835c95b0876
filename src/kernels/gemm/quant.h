// Products of quantised weights (4 or 8 bits in blocks of 32 along a row, a half scale each) with activations quantised
// to 8 bits: sums within a block are exact integers, so they have the same bits on every instruction set; blocks are
// added in fp32 from first to last.
//
//   c[m, j] = sum over blocks b of (scale of w[j, b] * scale of a[m, b]) * (codes of w[j, b] . codes of a[m, b])
//
// A block is GGUF's Q4_0 or Q8_0 (specification of the container: ggml, docs/gguf.md): value = scale * code with codes
// -8..7 or -128..127, which map onto panels without loss.
#pragma once
#include <stdint.h>

#include "kernels/gemm/gemm.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

enum class QuantType : uint8_t { q4, q8 };

inline constexpr int64_t kQuantBlock = 32;  // weights of a row, and activations of a row, that share a scale

// Weights [n, k] in panels of 16 rows, the last one filled up with zeros: first the codes of all blocks, then the half
// scales of all blocks, 16 a block. The codes of a block are 8 groups of 16 rows x 4 columns: q8 one group of 64 bytes
// after the other; q4 with group 2i in the low and 2i + 1 in the high half of 64 bytes, 8 added to every code.
inline constexpr int64_t quant_code_bytes(QuantType t) { return t == QuantType::q4 ? 256 : 512; }
inline constexpr int64_t quant_panel_bytes(QuantType t, int64_t k) {
  return k / kQuantBlock * (quant_code_bytes(t) + kPanel * 2);
}

// Rows of activations: codes [m, k], scales [m, k / 32], and what the integer sums of a block start from, [m, k / 32]:
// minus the sum of its codes times what is added to the codes of the weights.
struct QuantRows {
  int8_t* codes = nullptr;
  float* scale = nullptr;
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
};

struct QuantKernels {
  void (*q4)(const QuantProduct&);
  void (*q8)(const QuantProduct&);
  // One row of k activations, a multiple of 32: scale = max |x| / 127, codes rounded to nearest even. A block with a
  // number that is not finite has a scale that is not finite either.
  void (*activations_f32)(const float* x, int64_t k, QuantType weights, const QuantRows& row);
  void (*activations_bf16)(const bf16* x, int64_t k, QuantType weights, const QuantRows& row);
};
BK_DECLARE_TILE_KERNELS(QuantKernels, quant_kernels)

}  // namespace birkhoff::kernels
