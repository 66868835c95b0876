// Blocks of GGUF's IQ2, IQ3 and IQ1 formats: codes name rows of a codebook (codebooks.h), scales of a few bits multiply
// the block's own. The frame and its rules: stored_blocks.h.
#pragma once
#include "kernels/gemm/codebooks.h"
#include "kernels/gemm/stored_blocks.h"

namespace birkhoff::kernels::BK_ISA {

using Floats = float __attribute__((vector_size(32)));
using Unsigned = uint32_t __attribute__((vector_size(32)));

inline uint64_t row_of(const int8_t* row) { return read<uint64_t>(reinterpret_cast<const uint8_t*>(row)); }
inline uint64_t row_of(const int8_t* low, const int8_t* high) {
  return read<uint32_t>(reinterpret_cast<const uint8_t*>(low)) |
         static_cast<uint64_t>(read<uint32_t>(reinterpret_cast<const uint8_t*>(high))) << 32;
}
inline Floats row_values(uint64_t row) {
#if defined(__AVX2__)
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(row))));
#else
  Floats x;
  for (int i = 0; i < 8; ++i) x[i] = static_cast<float>(static_cast<int8_t>(row >> 8 * i));
  return x;
#endif
}

// out[8] = d times eight numbers, negative where their bit is set.
inline void signed_row(uint64_t row, uint32_t signs, float d, float* out) {
  const Unsigned sign = (Unsigned{} + signs) << Unsigned{31, 30, 29, 28, 27, 26, 25, 24} & 0x80000000u;
  const Unsigned x = (Unsigned)(d * row_values(row)) ^ sign;
  __builtin_memcpy(out, &x, sizeof x);
}
// Seven signs; the eighth makes their number even.
inline uint32_t even_signs(uint32_t seven) {
  return (seven & 127u) | static_cast<uint32_t>(__builtin_parity(seven & 127u)) << 7;
}
inline uint32_t nibble(const uint8_t* p, int i) { return p[i / 2] >> i % 2 * 4 & 15u; }

struct Iq2Xxs {
  static void group(const uint8_t* b, int g, float* out) {
    const uint8_t* codes = b + 2 + 8 * g;
    const uint32_t signs = read<uint32_t>(codes + 4);
    const float d = half_at(b) * (0.5f + static_cast<float>(signs >> 28)) * 0.25f;
    for (int i = 0; i < 4; ++i) signed_row(row_of(kIq2Xxs[codes[i]]), even_signs(signs >> 7 * i), d, out + 8 * i);
  }
};
struct Iq2Xs {
  static void group(const uint8_t* b, int g, float* out) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t code = read<uint16_t>(b + 2 + 8 * g + 2 * i);
      const float d = half_at(b) * (0.5f + static_cast<float>(nibble(b + 66 + g, i / 2))) * 0.25f;
      signed_row(row_of(kIq2Xs[code & 511u]), even_signs(code >> 9), d, out + 8 * i);
    }
  }
};
struct Iq2S {
  static void group(const uint8_t* b, int g, float* out) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t code = b[2 + 4 * g + i] | (b[66 + g] >> 2 * i & 3u) << 8;
      const float d = half_at(b) * (0.5f + static_cast<float>(nibble(b + 74 + g, i / 2))) * 0.25f;
      signed_row(row_of(kIq2S[code]), b[34 + 4 * g + i], d, out + 8 * i);
    }
  }
};
struct Iq3Xxs {
  static void group(const uint8_t* b, int g, float* out) {
    const uint8_t* codes = b + 2 + 8 * g;
    const uint32_t signs = read<uint32_t>(b + 66 + 4 * g);
    const float d = half_at(b) * (0.5f + static_cast<float>(signs >> 28)) * 0.5f;
    for (int i = 0; i < 4; ++i)
      signed_row(row_of(kIq3Xxs[codes[2 * i]], kIq3Xxs[codes[2 * i + 1]]), even_signs(signs >> 7 * i), d, out + 8 * i);
  }
};
struct Iq3S {
  static void group(const uint8_t* b, int g, float* out) {
    const float d = half_at(b) * static_cast<float>(1 + 2 * nibble(b + 106, g));
    const auto row = [&](int i) { return kIq3S[b[2 + 8 * g + i] | (b[66 + g] >> i & 1u) << 8]; };
    for (int i = 0; i < 4; ++i) signed_row(row_of(row(2 * i), row(2 * i + 1)), b[74 + 4 * g + i], d, out + 8 * i);
  }
};

// out[8] = d (-1, 0 or 1, an eighth more or less).
inline void shifted_row(const int8_t* row, bool less, float d, float* out) {
  const Floats x = d * (row_values(row_of(row)) + (less ? -0.125f : 0.125f));
  __builtin_memcpy(out, &x, sizeof x);
}
struct Iq1S {
  static void group(const uint8_t* b, int g, float* out) {
    const uint32_t high = read<uint16_t>(b + 34 + 2 * g);
    const float d = half_at(b) * static_cast<float>(2 * (high >> 12 & 7u) + 1);
    for (int i = 0; i < 4; ++i)
      shifted_row(kIq1[b[2 + 4 * g + i] | (high >> 3 * i & 7u) << 8], high >> 15, d, out + 8 * i);
  }
};
struct Iq1M {
  static void group(const uint8_t* b, int g, float* out) {
    const float d = half_value(block_scale(b + 48));
    for (int i = 0; i < 4; ++i) {
      const uint32_t high = nibble(b + 32 + 2 * g, i), scales = read<uint16_t>(b + 48 + g / 2 * 2);
      const uint32_t s = scales >> (g % 2 * 2 + i / 2) * 3 & 7u;
      shifted_row(kIq1[b[4 * g + i] | (high & 7u) << 8], high >> 3, d * static_cast<float>(2 * s + 1), out + 8 * i);
    }
  }
  // A half float in the highest four bits of four words, the lowest ones first.
  static uint32_t block_scale(const uint8_t* p) {
    uint32_t d = 0;
    for (int i = 0; i < 4; ++i) d |= (read<uint16_t>(p + 2 * i) >> 12u) << 4 * i;
    return d;
  }
};

}  // namespace birkhoff::kernels::BK_ISA
