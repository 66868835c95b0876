// Weights as model files store them, expanded to fp32 a few rows at a time. Number formats: models.md E.5 (FP8 blocks)
// and G.10 (FP4 rows); float types are IEEE 754 and OCP 8-bit formats.
#pragma once
#include <stdint.h>

#include "kernels/isa.h"

namespace birkhoff::kernels {

//   f8_e4m3   no infinities, largest 448, 0x7f and 0xff are NaN       f8_e5m2   the upper half of an IEEE half
//   fp4       e2m1, two a byte, the even column in the low nibble: 0, .5, 1, 1.5, 2, 3, 4, 6, bit 3 is the sign
//   f64       rounded to nearest even
//   i32, i64  whole numbers below 2^24: tables of indices, read as fp32
enum class StoredType : uint8_t { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, fp4, i32, i64 };
// f8_e8m0: 2^(byte - 127), 0xff is NaN.
enum class ScaleType : uint8_t { none, f32, f8_e8m0 };

inline constexpr int stored_bits(StoredType t) {
  switch (t) {
    case StoredType::f64:
    case StoredType::i64:
      return 64;
    case StoredType::f32:
    case StoredType::i32:
      return 32;
    case StoredType::f16:
    case StoredType::bf16:
      return 16;
    case StoredType::fp4:
      return 4;
    default:
      return 8;
  }
}

// A tensor [rows, cols] at any byte alignment. With scales every block of block_rows x block_cols elements has one
// factor, rows of factors one after the other, blocks at the right and lower edge partial. fp4: cols is even.
struct StoredTensor {
  const uint8_t* data = nullptr;
  const uint8_t* scale = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t block_rows = 1, block_cols = 1;
  StoredType type = StoredType::f32;
  ScaleType scale_type = ScaleType::none;
  int64_t row_bytes() const { return cols * stored_bits(type) / 8; }
  const uint8_t* row(int64_t r) const { return data + r * row_bytes(); }
};

struct StoredKernels {
  // out[r * out_row + c] = element (row + r, col + c) times its factor in fp32, for r < rows, c < cols. fp4: col is
  // even.
  void (*expand)(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out,
                 int64_t out_row);
};
BK_DECLARE_KERNELS(StoredKernels, stored_kernels)

}  // namespace birkhoff::kernels
