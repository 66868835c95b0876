#include "checkpoint/fp8_blocks.h"

#include <algorithm>
#include <cmath>

namespace birkhoff::checkpoint {

uint8_t to_e4m3(float x) {
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return sign | 0x7f;
  const float m = std::abs(x);
  if (m >= 448.f) return sign | 0x7e;
  // One step of the format: 2^-9 below 2^-6, else an eighth of the power of two. nearbyint rounds ties to even, and the
  // step's parity is the code's.
  const int exponent = m < 0x1p-6f ? -6 : std::ilogb(m);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(m, 3 - exponent)));  // 0..16
  const int code = (exponent + 6) * 8 + steps;  // a carry moves into the exponent by itself
  return static_cast<uint8_t>(sign | std::min(code, 0x7e));
}

void quantise_block_rows(CMat rows, int64_t block_cols, uint8_t* codes, float* factors) {
  for (int64_t c = 0; c < rows.cols; c += block_cols, ++factors) {
    const int64_t end = std::min(rows.cols, c + block_cols);
    float largest = 0;
    for (int64_t r = 0; r < rows.rows; ++r)
      for (int64_t k = c; k < end; ++k) largest = std::max(largest, std::abs(rows.f32(r)[k]));
    *factors = largest > 0 ? std::max(largest / 448.f, 0x1p-126f) : 1.f;
    for (int64_t r = 0; r < rows.rows; ++r)
      for (int64_t k = c; k < end; ++k) codes[r * rows.cols + k] = to_e4m3(rows.f32(r)[k] / *factors);
  }
}

}  // namespace birkhoff::checkpoint
