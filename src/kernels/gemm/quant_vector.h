// Quantised products in vector registers: R rows of activations against one panel of 16 rows of weights.
// Included by quant.isa.cc only.
#pragma once
#include "kernels/gemm/quant.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

#if defined(__AVX512F__)
inline constexpr int kQuantRows = 8;
#elif defined(__AVX2__)
inline constexpr int kQuantRows = 4;
#else
inline constexpr int kQuantRows = 1;
#endif

// What is added to the codes of weights before the processor multiplies them, unsigned, with signed activations.
template <QuantType T>
inline constexpr int32_t quant_offset() {
#if defined(__AVX512F__)
  return T == QuantType::q4 ? 8 : 128;
#else
  return T == QuantType::q4 ? 8 : 0;
#endif
}

// Few rows wait for weights to come from memory: what the processor fetches by itself ends with every page.
inline constexpr int kFewRows = 4;
template <QuantType T>
inline void fetch_ahead(const uint8_t* codes) {
  constexpr int64_t kAhead = 4096;
  for (int64_t i = 0; i < quant_code_bytes(T) + 2 * kPanel; i += 64) __builtin_prefetch(codes + kAhead + i, 0, 2);
}

inline int32_t four_codes(const int8_t* p) {
  int32_t x;
  __builtin_memcpy(&x, p, 4);
  return x;
}

inline void store_quant(const QuantProduct& g, V sum, int64_t row, int64_t col) {
  const int64_t left = g.n - col;
  if (left <= 0) return;
  const int n = left < kLanes ? static_cast<int>(left) : kLanes;
  if (g.store == GemmStore::assign_bf16) return store_some(static_cast<bf16*>(g.c) + row * g.c_row + col, sum, n);
  float* c = static_cast<float*>(g.c) + row * g.c_row + col;
  store_some(c, g.store == GemmStore::add_f32 ? load_some(c, n) + sum : sum, n);
}

#if defined(__AVX512F__)

// Groups 2i and 2i + 1 of a block, as the unsigned operand.
template <QuantType T>
inline void load_groups(const uint8_t* codes, int i, __m512i& even, __m512i& odd) {
  if constexpr (T == QuantType::q4) {
    const __m512i x = _mm512_loadu_si512(codes + i * 64), low = _mm512_set1_epi8(0x0f);
    even = _mm512_and_si512(x, low);
    odd = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
  } else {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    even = _mm512_xor_si512(_mm512_loadu_si512(codes + i * 128), sign);
    odd = _mm512_xor_si512(_mm512_loadu_si512(codes + i * 128 + 64), sign);
  }
}

template <QuantType T, int R>
inline void quant_rows(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  const float* a_scale = g.a.scale + row * blocks;
  const int32_t* a_start = g.a.start + row * blocks;
  V sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r] = set1(0.f);
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += 2 * kPanel, a += kQuantBlock) {
    if constexpr (R <= kFewRows) fetch_ahead<T>(codes);
    __m512i dot[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) dot[r] = _mm512_set1_epi32(a_start[r * blocks + b]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      __m512i even, odd;
      load_groups<T>(codes, i, even, odd);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        dot[r] = _mm512_dpbusd_epi32(dot[r], even, _mm512_set1_epi32(four_codes(a + r * g.k + i * 8)));
        dot[r] = _mm512_dpbusd_epi32(dot[r], odd, _mm512_set1_epi32(four_codes(a + r * g.k + i * 8 + 4)));
      }
    }
    const V scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum[r] = fma(_mm512_cvtepi32_ps(dot[r]), scale * set1(a_scale[r * blocks + b]), sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store_quant(g, sum[r], row + r, panel * kPanel);
}

#elif defined(__AVX2__)

inline __m256i broadcast_codes(const int8_t* p) { return _mm256_set1_epi32(four_codes(p)); }

// The integer sums of half a block of weights (8 rows) with R rows of activations; sums start at 0.
template <QuantType T, int R>
inline void dot_half(const uint8_t* codes, const int8_t* a, int64_t a_row, __m256i (&dot)[R]) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (T == QuantType::q4) {  // 15 * 127 * 2 * 8 fits 16 bits: widened once a block
    const __m256i low = _mm256_set1_epi8(0x0f);
    __m256i pair[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) pair[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * 64));
      const __m256i even = _mm256_and_si256(x, low), odd = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        pair[r] = _mm256_add_epi16(pair[r], _mm256_maddubs_epi16(even, broadcast_codes(a + r * a_row + i * 8)));
        pair[r] = _mm256_add_epi16(pair[r], _mm256_maddubs_epi16(odd, broadcast_codes(a + r * a_row + i * 8 + 4)));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) dot[r] = _mm256_madd_epi16(pair[r], ones);
  } else {  // |w| * (a with the sign of w): 2 * 128 * 127 just fits 16 bits
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) dot[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * 64)), size = _mm256_abs_epi8(w);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m256i pair = _mm256_maddubs_epi16(size, _mm256_sign_epi8(broadcast_codes(a + r * a_row + i * 4), w));
        dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(pair, ones));
      }
    }
  }
}

// Halves [first, last) of a panel.
template <QuantType T, int R, int kFirst, int kLast>
inline void quant_halves(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  const float* a_scale = g.a.scale + row * blocks;
  const int32_t* a_start = g.a.start + row * blocks;
  V sum[kLast - kFirst][R];
  for (auto& half : sum)
    for (V& v : half) v = set1(0.f);
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += 2 * kPanel, a += kQuantBlock) {
    if constexpr (R <= kFewRows) fetch_ahead<T>(codes);
#pragma GCC unroll 2
    for (int h = kFirst; h < kLast; ++h) {
      __m256i dot[R];
      dot_half<T, R>(codes + h * 32, a, g.k, dot);
      const V scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + h * 16)));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m256i all = _mm256_add_epi32(dot[r], _mm256_set1_epi32(a_start[r * blocks + b]));
        V& to = sum[h - kFirst][r];
        to = fma(_mm256_cvtepi32_ps(all), scale * set1(a_scale[r * blocks + b]), to);
      }
    }
  }
  for (int h = kFirst; h < kLast; ++h)
    for (int r = 0; r < R; ++r) store_quant(g, sum[h - kFirst][r], row + r, panel * kPanel + h * kLanes);
}

// One row waits for memory, which both halves of a block share; the sums of several fill the registers with one half.
template <QuantType T, int R>
inline void quant_rows(const QuantProduct& g, int64_t row, int64_t panel) {
  if constexpr (R <= 2) {
    quant_halves<T, R, 0, 2>(g, row, panel);
  } else {
    quant_halves<T, R, 0, 1>(g, row, panel);
    quant_halves<T, R, 1, 2>(g, row, panel);
  }
}

#else

inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
  if (exponent == 0) {
    const float v = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -v : v;
  }
  const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
  float v;
  __builtin_memcpy(&v, &bits, 4);
  return v;
}

template <QuantType T, int R>
inline void quant_rows(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  float sum[kPanel] = {};
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += 2 * kPanel, a += kQuantBlock) {
    const float a_scale = g.a.scale[row * blocks + b];
    for (int64_t j = 0; j < kPanel; ++j) {
      int32_t dot = g.a.start[row * blocks + b];
      for (int i = 0; i < 8; ++i)
        for (int q = 0; q < 4; ++q) {
          const uint8_t w = codes[(T == QuantType::q4 ? i / 2 : i) * 64 + j * 4 + q];
          const int32_t code = T == QuantType::q8 ? static_cast<int8_t>(w) : i % 2 ? w >> 4 : w & 15;
          dot += code * a[i * 4 + q];
        }
      uint16_t half;
      __builtin_memcpy(&half, scales + 2 * j, 2);
      sum[j] = __builtin_fmaf(static_cast<float>(dot), half_to_float(half) * a_scale, sum[j]);
    }
  }
  for (int64_t j = 0; j < kPanel; ++j) store_quant(g, sum[j], row, panel * kPanel + j);
}

#endif

template <QuantType T, int R>
inline void quant_tail(const QuantProduct& g, int64_t row, int64_t panel) {
  if constexpr (R > 0) {
    if (g.m - row == R)
      quant_rows<T, R>(g, row, panel);
    else
      quant_tail<T, R - 1>(g, row, panel);
  }
}

// Rows [first, g.m) against one panel.
template <QuantType T>
inline void quant_panel(const QuantProduct& g, int64_t first, int64_t panel) {
  int64_t row = first;
  for (; row + kQuantRows <= g.m; row += kQuantRows) quant_rows<T, kQuantRows>(g, row, panel);
  quant_tail<T, kQuantRows - 1>(g, row, panel);
}

}  // namespace birkhoff::kernels::BK_ISA
