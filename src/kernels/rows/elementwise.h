#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

// Row r of n codes begins at codes + r * row and has the scale r * scale_row.
struct CodedRows {
  const int8_t* codes;
  int64_t row;
  const float* scale;
  int64_t scale_row;
  int64_t rows, n;
};

// Rows of n elements; first letter of a pair is the source, second the destination (f: fp32, b: bf16).
struct ElementwiseKernels {
  void (*copy_ff)(const float* from, float* to, int64_t n);
  void (*copy_fb)(const float* from, bf16* to, int64_t n);
  void (*copy_bf)(const bf16* from, float* to, int64_t n);
  void (*copy_bb)(const bf16* from, bf16* to, int64_t n);
  void (*add_ff)(const float* from, float* to, int64_t n);
  void (*add_fb)(const float* from, bf16* to, int64_t n);
  void (*add_bf)(const bf16* from, float* to, int64_t n);
  void (*add_bb)(const bf16* from, bf16* to, int64_t n);
  // high + low = from to 16 bits.
  void (*split)(const float* from, bf16* high, bf16* low, int64_t n);
  // codes = from / scale rounded to nearest even, scale = max |from| / 127 (with one that is not finite: NaN), and
  // back.
  void (*encode_f)(const float* from, int64_t n, int8_t* codes, float* scale);
  void (*encode_b)(const bf16* from, int64_t n, int8_t* codes, float* scale);
  void (*decode_f)(const CodedRows& from, float* to, int64_t to_row);
  void (*decode_b)(const CodedRows& from, bf16* to, int64_t to_row);
};
BK_DECLARE_KERNELS(ElementwiseKernels, elementwise_kernels)

}  // namespace birkhoff::kernels
