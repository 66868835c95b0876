// Blocks of GGUF files: whole numbers of few bits with scales of their own, in the layouts of ggml; equal to its
// decoders bit for bit. Every block is whole groups of 32 elements:
//   group(b, g, out)   out[32] = elements [32 g, 32 g + 32) of the block at b
// Codes are first brought to 32 bytes of a vector, one an element, and then multiplied, in the order of the formula. An
// f16 scale that is no number makes its elements none. Formats with codebooks: stored_codebooks.h.
#pragma once
#include "kernels/gemm/stored_values.h"

namespace birkhoff::kernels::BK_ISA {

inline constexpr int kGroup = 32;

inline float half_at(const uint8_t* p) { return half_value(read<uint16_t>(p)); }

// Vectors of the compiler's own: one source for every instruction set. Signed numbers are kept modulo 256.
using Bytes = uint8_t __attribute__((vector_size(32)));
using Words = uint16_t __attribute__((vector_size(32)));
using HalfBytes = uint8_t __attribute__((vector_size(16)));
using HalfWords = uint16_t __attribute__((vector_size(16)));

// Bits `shift` and above of every byte; those of the neighbour above them are left for a mask.
inline Bytes shifted(Bytes x, int shift) { return (Bytes)((Words)x >> static_cast<uint16_t>(shift)); }

#if defined(__AVX2__)
// kLanes elements from element i on.
inline V values_at(Bytes q, int i) {
  __m128i half = i < 16 ? _mm256_castsi256_si128((__m256i)q) : _mm256_extracti128_si256((__m256i)q, 1);
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(half));
#else
  if (i % 16) half = _mm_srli_si128(half, 8);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(half));
#endif
}
#endif
// out[i] = f(element i) for first <= i < first + n
template <int first, int n, class F>
inline void store_values(Bytes q, float* __restrict out, F f) {
#if defined(__AVX2__)
#pragma GCC unroll 4
  for (int i = first; i < first + n; i += kLanes) store(out + i, f(values_at(q, i)));
#else
  int8_t codes[kGroup];
  __builtin_memcpy(codes, &q, kGroup);
  for (int i = first; i < first + n; ++i) out[i] = f(static_cast<float>(codes[i]));
#endif
}
// d q
template <int first = 0, int n = kGroup>
inline void scale(Bytes q, float d, float* out) {
  const V dv = set1(d);
  store_values<first, n>(q, out, [=](V x) { return dv * x; });
}
// d q + m
template <int first = 0, int n = kGroup>
inline void scale_and_shift(Bytes q, float d, float m, float* out) {
  const V dv = set1(d), mv = set1(m);
  store_values<first, n>(q, out, [=](V x) { return dv * x + mv; });
}

// The low nibbles of 16 bytes, then the high ones.
inline Bytes nibbles(const uint8_t* p) {
  const HalfBytes x = read<HalfBytes>(p), high = (HalfBytes)((HalfWords)x >> 4);
  return __builtin_shufflevector(x, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                 22, 23, 24, 25, 26, 27, 28, 29, 30, 31) &
         15;
}
// Byte i is 255 where bit i is set, else 0.
inline Bytes bit_masks(uint32_t bits) {
  const HalfBytes x = (HalfBytes)(uint32_t __attribute__((vector_size(16)))){bits};
  const Bytes spread = __builtin_shufflevector(x, x, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2,
                                               2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const Bytes own = (Bytes)((uint64_t __attribute__((vector_size(32)))){} + 0x8040201008040201u);
  return (Bytes)((spread & own) != 0);
}
// The entries that nibbles name.
inline Bytes entries(Bytes nibble, const int8_t* table) {
#if defined(__AVX2__)
  const __m256i t = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
  return (Bytes)_mm256_shuffle_epi8(t, (__m256i)nibble);
#else
  for (int i = 0; i < kGroup; ++i) nibble[i] = static_cast<uint8_t>(table[nibble[i]]);
  return nibble;
#endif
}

alignas(16) inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};
// e2m1 doubled, so that the numbers are whole; the scale is halved.
alignas(16) inline constexpr int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct Q4_0 {
  static void group(const uint8_t* b, int, float* out) { scale(nibbles(b + 2) - 8, half_at(b), out); }
};
struct Q4_1 {
  static void group(const uint8_t* b, int, float* out) {
    scale_and_shift(nibbles(b + 4), half_at(b), half_at(b + 2), out);
  }
};
struct Q5_0 {
  static void group(const uint8_t* b, int, float* out) {
    scale((nibbles(b + 6) | (bit_masks(read<uint32_t>(b + 2)) & 16)) - 16, half_at(b), out);
  }
};
struct Q5_1 {
  static void group(const uint8_t* b, int, float* out) {
    scale_and_shift(nibbles(b + 8) | (bit_masks(read<uint32_t>(b + 4)) & 16), half_at(b), half_at(b + 2), out);
  }
};
struct Q8_0 {
  static void group(const uint8_t* b, int, float* out) { scale(read<Bytes>(b + 2), half_at(b), out); }
};

// Two bits an element in halves of 128: bits 2 (g % 4) and above of the 32 bytes of the half.
inline Bytes two_bits(const uint8_t* p, int g) { return shifted(read<Bytes>(p + g / 4 * 32), g % 4 * 2) & 3; }

struct Q2K {
  static void group(const uint8_t* b, int g, float* out) {
    const Bytes q = two_bits(b + 16, g);
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    const int s = b[2 * g], t = b[2 * g + 1];
    scale_and_shift<0, 16>(q, d * static_cast<float>(s & 15), -(dmin * static_cast<float>(s >> 4)), out);
    scale_and_shift<16, 16>(q, d * static_cast<float>(t & 15), -(dmin * static_cast<float>(t >> 4)), out);
  }
};
struct Q3K {
  static void group(const uint8_t* b, int g, float* out) {
    const Bytes q = two_bits(b + 32, g) + ((shifted(read<Bytes>(b), g) & 1) << 2) - 4;
    const float d = half_at(b + 108);
    scale<0, 16>(q, d * static_cast<float>(six_bits(b + 96, 2 * g) - 32), out);
    scale<16, 16>(q, d * static_cast<float>(six_bits(b + 96, 2 * g + 1) - 32), out);
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
    const Bytes q = shifted(read<Bytes>(b + 16 + g / 2 * 32), g % 2 * 4) & 15;
    const ScaleMin s = scale_min(b + 4, g);
    scale_and_shift(q, half_at(b) * s.scale, -(half_at(b + 2) * s.min), out);
  }
};
struct Q5K {
  static void group(const uint8_t* b, int g, float* out) {
    const Bytes low = shifted(read<Bytes>(b + 48 + g / 2 * 32), g % 2 * 4) & 15;
    const Bytes fifth = shifted(read<Bytes>(b + 16), g) & 1;
    const ScaleMin s = scale_min(b + 4, g);
    scale_and_shift(low | fifth << 4, half_at(b) * s.scale, -(half_at(b + 2) * s.min), out);
  }
};
struct Q6K {
  static void group(const uint8_t* b, int g, float* out) {
    const Bytes low = shifted(read<Bytes>(b + g / 4 * 64 + g % 2 * 32), g % 4 / 2 * 4) & 15;
    const Bytes high = shifted(read<Bytes>(b + 128 + g / 4 * 32), g % 4 * 2) & 3;
    const Bytes q = (low | high << 4) - 32;
    const float d = half_at(b + 208);
    scale<0, 16>(q, d * static_cast<float>(read<int8_t>(b + 192 + 2 * g)), out);
    scale<16, 16>(q, d * static_cast<float>(read<int8_t>(b + 193 + 2 * g)), out);
  }
};

struct Iq4Nl {
  static void group(const uint8_t* b, int, float* out) { scale(entries(nibbles(b + 2), kIq4Values), half_at(b), out); }
};
struct Iq4Xs {
  static void group(const uint8_t* b, int g, float* out) {
    const int s = (b[4 + g / 2] >> g % 2 * 4 & 15) | (read<uint16_t>(b + 2) >> 2 * g & 3) << 4;
    scale(entries(nibbles(b + 8 + 16 * g), kIq4Values), half_at(b) * static_cast<float>(s - 32), out);
  }
};
struct Mxfp4 {
  static void group(const uint8_t* b, int, float* out) {
    scale(entries(nibbles(b + 1), kE2m1Doubled), 0.5f * e8m0_value(b[0]), out);
  }
};
struct Nvfp4 {
  // Of eight bytes the low nibbles, then the high ones: 16 elements.
  static void group(const uint8_t* b, int g, float* out) {
    using Quads = uint64_t __attribute__((vector_size(32)));
    const Quads q = (Quads)entries(nibbles(b + 4 + 16 * g), kE2m1Doubled);
    const Bytes in_order = (Bytes)__builtin_shufflevector(q, q, 0, 2, 1, 3);
    scale<0, 16>(in_order, 0.5f * ue4m3(b[2 * g]), out);
    scale<16, 16>(in_order, 0.5f * ue4m3(b[2 * g + 1]), out);
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
    scale(read<Bytes>(reinterpret_cast<const uint8_t*>(q)), half_at(b + 52), out);
  }
  template <int count>
  static void trits(const uint8_t* __restrict p, int n, int8_t* __restrict q) {
    constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
    for (int i = 0; i < count; ++i) q[i] = static_cast<int8_t>((((p[i] * kPowers[n]) & 255) * 3 >> 8) - 1);
  }
};
struct Tq2_0 {
  static void group(const uint8_t* b, int g, float* out) { scale(two_bits(b, g) - 1, half_at(b + 64), out); }
};
// One bit an element, 1 is d and 0 is -d; two bits an element, d (q - 1); both in the order of the elements.
struct Q1_0 {
  static void group(const uint8_t* b, int g, float* out) {
    scale((bit_masks(read<uint32_t>(b + 2 + 4 * g)) & 2) - 1, half_at(b), out);
  }
};
struct Q2_0 {
  static void group(const uint8_t* b, int g, float* out) {
    using Lanes = uint32_t __attribute__((vector_size(32)));
    const Lanes x = __builtin_convertvector(read<uint8_t __attribute__((vector_size(8)))>(b + 2 + 8 * g), Lanes);
    scale(((Bytes)(x | x << 6 | x << 12 | x << 18) & 3) - 1, half_at(b), out);
  }
};

}  // namespace birkhoff::kernels::BK_ISA
