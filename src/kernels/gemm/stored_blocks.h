// Blocks of GGUF files: whole numbers of few bits with scales of their own, in the layouts of ggml; equal to its
// decoders bit for bit. Every block is whole groups of 32 elements:
//   group(b, g, out)   out[32] = elements [32 g, 32 g + 32) of the block at b
// In each the codes are first brought to bytes and then multiplied; products in the order of the formula. An f16 scale
// that is no number makes its elements none. Formats with codebooks: stored_codebooks.h.
#pragma once
#include "kernels/gemm/stored_values.h"

namespace birkhoff::kernels::BK_ISA {

inline constexpr int kGroup = 32;

inline float half_value(uint32_t bits) {
#if defined(__AVX2__)
  return _cvtsh_ss(static_cast<uint16_t>(bits));
#else
  return f16_value(bits);
#endif
}
inline float half_at(const uint8_t* p) { return half_value(read<uint16_t>(p)); }

// out = d q
template <int n>
inline void scale(const int8_t* __restrict q, float d, float* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = d * static_cast<float>(q[i]);
}
// out = d q + m
template <int n>
inline void scale_and_shift(const int8_t* __restrict q, float d, float m, float* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}
// The low nibbles of 16 bytes, then the high ones, less `offset`.
inline void nibbles(const uint8_t* __restrict p, int offset, int8_t* __restrict q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = static_cast<int8_t>((p[i] & 15) - offset);
    q[16 + i] = static_cast<int8_t>((p[i] >> 4) - offset);
  }
}
// `bits` of each of 32 bytes from `shift` on.
inline void bits_at(const uint8_t* __restrict p, int shift, int mask, int offset, int8_t* __restrict q) {
  for (int i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>(((p[i] >> shift) & mask) - offset);
}
// Adds bit `from` of each of 32 bytes as the bit of value 16.
inline void fifth_bits(const uint8_t* __restrict p, int from, int8_t* __restrict q) {
  for (int i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>(q[i] | ((p[i] >> from) & 1) << 4);
}
// The same from bit i of a word.
inline void fifth_bits_of_word(uint32_t bits, int offset, int8_t* __restrict q) {
  for (uint32_t i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>((q[i] | ((bits >> i) & 1u) << 4) - offset);
}
// Nibbles as above, each the number of an entry.
inline void nibble_entries(const uint8_t* __restrict p, const int8_t* __restrict table, int8_t* __restrict q) {
#if defined(__AVX2__)
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table)), low = _mm_set1_epi8(15);
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_shuffle_epi8(t, _mm_and_si128(x, low)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm_shuffle_epi8(t, _mm_and_si128(_mm_srli_epi16(x, 4), low)));
#else
  for (int i = 0; i < 16; ++i) {
    q[i] = table[p[i] & 15];
    q[16 + i] = table[p[i] >> 4];
  }
#endif
}

alignas(16) inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};
// e2m1 doubled, so that the numbers are whole; the scale is halved.
alignas(16) inline constexpr int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct Q4_0 {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibbles(b + 2, 8, q);
    scale<kGroup>(q, half_at(b), out);
  }
};
struct Q4_1 {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibbles(b + 4, 0, q);
    scale_and_shift<kGroup>(q, half_at(b), half_at(b + 2), out);
  }
};
struct Q5_0 {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibbles(b + 6, 0, q);
    fifth_bits_of_word(read<uint32_t>(b + 2), 16, q);
    scale<kGroup>(q, half_at(b), out);
  }
};
struct Q5_1 {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibbles(b + 8, 0, q);
    fifth_bits_of_word(read<uint32_t>(b + 4), 0, q);
    scale_and_shift<kGroup>(q, half_at(b), half_at(b + 2), out);
  }
};
struct Q8_0 {
  static void group(const uint8_t* b, int, float* out) {
    scale<kGroup>(reinterpret_cast<const int8_t*>(b + 2), half_at(b), out);
  }
};

// Two bits an element in halves of 128: bits 2 (g % 4) and above of the 32 bytes of the half.
inline void two_bits(const uint8_t* p, int g, int offset, int8_t* q) {
  bits_at(p + g / 4 * 32, g % 4 * 2, 3, offset, q);
}

struct Q2K {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    two_bits(b + 16, g, 0, q);
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int half = 0; half < 2; ++half) {
      const int s = b[2 * g + half];
      scale_and_shift<16>(q + 16 * half, d * static_cast<float>(s & 15), -(dmin * static_cast<float>(s >> 4)),
                          out + 16 * half);
    }
  }
};
struct Q3K {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    two_bits(b + 32, g, 0, q);
    for (int i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>(q[i] - ((~b[i] >> g & 1) << 2));
    const float d = half_at(b + 108);
    for (int half = 0; half < 2; ++half)
      scale<16>(q + 16 * half, d * static_cast<float>(six_bits(b + 96, 2 * g + half) - 32), out + 16 * half);
  }
  // Scale i of 16: low four bits in nibbles of bytes 0 to 7, high two in bytes 8 to 11.
  static int six_bits(const uint8_t* s, int i) {
    return (s[i % 8] >> i / 8 * 4 & 15) | (s[8 + i % 4] >> i / 4 * 2 & 3) << 4;
  }
};

// Scale and minimum g of 8, six bits each in 12 bytes.
struct ScaleMin {
  float scale, min;
};
inline ScaleMin scale_min(const uint8_t* s, int g) {
  const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
  const int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
  return {static_cast<float>(scale), static_cast<float>(min)};
}
struct Q4K {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    bits_at(b + 16 + g / 2 * 32, g % 2 * 4, 15, 0, q);
    const ScaleMin s = scale_min(b + 4, g);
    scale_and_shift<kGroup>(q, half_at(b) * s.scale, -(half_at(b + 2) * s.min), out);
  }
};
struct Q5K {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    bits_at(b + 48 + g / 2 * 32, g % 2 * 4, 15, 0, q);
    fifth_bits(b + 16, g, q);
    const ScaleMin s = scale_min(b + 4, g);
    scale_and_shift<kGroup>(q, half_at(b) * s.scale, -(half_at(b + 2) * s.min), out);
  }
};
struct Q6K {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    const uint8_t *low = b + g / 4 * 64 + g % 2 * 32, *high = b + 128 + g / 4 * 32;
    const int low_shift = g % 4 / 2 * 4, high_shift = g % 4 * 2;
    for (int i = 0; i < kGroup; ++i)
      q[i] = static_cast<int8_t>(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    const float d = half_at(b + 208);
    for (int half = 0; half < 2; ++half)
      scale<16>(q + 16 * half, d * static_cast<float>(read<int8_t>(b + 192 + 2 * g + half)), out + 16 * half);
  }
};

struct Iq4Nl {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibble_entries(b + 2, kIq4Values, q);
    scale<kGroup>(q, half_at(b), out);
  }
};
struct Iq4Xs {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    nibble_entries(b + 8 + 16 * g, kIq4Values, q);
    const int s = (b[4 + g / 2] >> g % 2 * 4 & 15) | (read<uint16_t>(b + 2) >> 2 * g & 3) << 4;
    scale<kGroup>(q, half_at(b) * static_cast<float>(s - 32), out);
  }
};
struct Mxfp4 {
  static void group(const uint8_t* b, int, float* out) {
    int8_t q[kGroup];
    nibble_entries(b + 1, kE2m1Doubled, q);
    scale<kGroup>(q, 0.5f * e8m0_value(b[0]), out);
  }
};
struct Nvfp4 {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];  // of 16 bytes the low nibbles, then the high ones; 8 bytes are one group of 16 elements
    nibble_entries(b + 4 + 16 * g, kE2m1Doubled, q);
    for (int half = 0; half < 2; ++half) {
      const float d = 0.5f * ue4m3(b[2 * g + half]);
      scale<8>(q + 8 * half, d, out + 16 * half);
      scale<8>(q + 16 + 8 * half, d, out + 16 * half + 8);
    }
  }
  // Without its sign; 0x7f is 0.
  static float ue4m3(uint32_t x) {
    if (x == 0x7f) return 0;
    const uint32_t magnitude = x & 0x7f;
    return magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f : from_bits((magnitude << 20) + (120u << 23));
  }
};

// Five numbers of -1, 0, 1 a byte as a fraction of 243: times 3^n mod 256 and times 3, the whole part is number n.
struct Tq1_0 {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    if (g < 5) {
      trits<32>(b, g, q);
    } else if (g < 7) {
      trits<16>(b + 32, 2 * g - 10, q);
      trits<16>(b + 32, 2 * g - 9, q + 16);
    } else {
      trits<16>(b + 32, 4, q);
      for (int n = 0; n < 4; ++n) trits<4>(b + 48, n, q + 16 + 4 * n);
    }
    scale<kGroup>(q, half_at(b + 52), out);
  }
  template <int count>
  static void trits(const uint8_t* __restrict p, int n, int8_t* __restrict q) {
    constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
    for (int i = 0; i < count; ++i) q[i] = static_cast<int8_t>((((p[i] * kPowers[n]) & 255) * 3 >> 8) - 1);
  }
};
struct Tq2_0 {
  static void group(const uint8_t* b, int g, float* out) {
    int8_t q[kGroup];
    two_bits(b, g, 1, q);
    scale<kGroup>(q, half_at(b + 64), out);
  }
};
// One bit an element, 1 is d and 0 is -d; two bits an element, d (q - 1); both in the order of the elements.
struct Q1_0 {
  static void group(const uint8_t* b, int g, float* out) {
    const uint32_t bits = read<uint32_t>(b + 2 + 4 * g);
    int8_t q[kGroup];
    for (int i = 0; i < kGroup; ++i) q[i] = bits >> i & 1u ? 1 : -1;
    scale<kGroup>(q, half_at(b), out);
  }
};
struct Q2_0 {
  static void group(const uint8_t* b, int g, float* out) {
    const uint8_t* p = b + 2 + 8 * g;
    int8_t q[kGroup];
    for (int i = 0; i < kGroup; ++i) q[i] = static_cast<int8_t>((p[i / 4] >> i % 4 * 2 & 3) - 1);
    scale<kGroup>(q, half_at(b), out);
  }
};

}  // namespace birkhoff::kernels::BK_ISA
