// Weights as model files store them, expanded to fp32 a few rows at a time. Number formats: models.md E.5 (FP8 blocks)
// and G.10 (FP4 rows); float types are IEEE 754 and OCP 8-bit formats.
#pragma once
#include <stdint.h>

#include "kernels/isa.h"

namespace birkhoff::kernels {

//   f8_e4m3   no infinities, largest 448, 0x7f and 0xff are NaN       f8_e5m2   the upper half of an IEEE half
//   fp4       e2m1, two a byte, the even column in the low nibble: 0, .5, 1, 1.5, 2, 3, 4, 6, bit 3 is the sign
//   f64       rounded to nearest even
//   i8 - i64  whole numbers, those below 2^24 exactly
// From q4_0 on: blocks of GGUF files with scales of their own, in the layouts of ggml (stored_blocks.h).
enum class StoredType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  fp4,
  i8,
  i16,
  i32,
  i64,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  iq4_xs,
  mxfp4,
  nvfp4,
  tq1_0,
  tq2_0,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
  q1_0,
  q2_0
};
// f8_e8m0: 2^(byte - 127), 0xff is NaN.
enum class ScaleType : uint8_t { none, f32, f8_e8m0 };

// A row is a whole number of blocks.
struct StoredFormat {
  const char* name;
  int block_elements, block_bytes;
};

inline constexpr int kStoredTypes = static_cast<int>(StoredType::q2_0) + 1;

// In the order of StoredType. One a source and not inline: objects of an instruction set may not bring along a symbol
// that the linker could keep for all (tools/check_isa_objects.py).
constexpr StoredFormat kStoredFormats[] = {
    {"f64", 1, 8},        {"f32", 1, 4},       {"f16", 1, 2},        {"bf16", 1, 2},      {"f8_e4m3", 1, 1},
    {"f8_e5m2", 1, 1},    {"fp4", 2, 1},       {"i8", 1, 1},         {"i16", 1, 2},       {"i32", 1, 4},
    {"i64", 1, 8},        {"q4_0", 32, 18},    {"q4_1", 32, 20},     {"q5_0", 32, 22},    {"q5_1", 32, 24},
    {"q8_0", 32, 34},     {"q2_k", 256, 84},   {"q3_k", 256, 110},   {"q4_k", 256, 144},  {"q5_k", 256, 176},
    {"q6_k", 256, 210},   {"iq4_nl", 32, 18},  {"iq4_xs", 256, 136}, {"mxfp4", 32, 17},   {"nvfp4", 64, 36},
    {"tq1_0", 256, 54},   {"tq2_0", 256, 66},  {"iq2_xxs", 256, 66}, {"iq2_xs", 256, 74}, {"iq2_s", 256, 82},
    {"iq3_xxs", 256, 98}, {"iq3_s", 256, 110}, {"iq1_s", 256, 50},   {"iq1_m", 256, 56},  {"q1_0", 128, 18},
    {"q2_0", 64, 18}};
static_assert(sizeof kStoredFormats / sizeof(StoredFormat) == kStoredTypes);

inline constexpr StoredFormat stored_format(StoredType t) { return kStoredFormats[static_cast<int>(t)]; }

// A tensor [rows, cols] at any byte alignment. With scales every block of block_rows x block_cols elements has one
// factor, rows of factors one after the other, blocks at the right and lower edge partial. Formats with scales of their
// own have none beside them.
struct StoredTensor {
  const uint8_t* data = nullptr;
  const uint8_t* scale = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t block_rows = 1, block_cols = 1;
  StoredType type = StoredType::f32;
  ScaleType scale_type = ScaleType::none;
  int64_t row_bytes() const {
    const StoredFormat f = stored_format(type);
    return cols / f.block_elements * f.block_bytes;
  }
  const uint8_t* row(int64_t r) const { return data + r * row_bytes(); }
};

struct StoredKernels {
  // out[r * out_row + c] = element (row + r, col + c) times its factor in fp32, for r < rows, c < cols. fp4: col is
  // even; columns of the formats after it may begin and end inside a block.
  void (*expand)(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out,
                 int64_t out_row);
};
BK_DECLARE_KERNELS(StoredKernels, stored_kernels)

}  // namespace birkhoff::kernels
