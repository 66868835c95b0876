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

// Where the integer sums of a block start, from minus 8 times the sum of the activations' codes (a multiple of 8): what
// is added to the codes of weights before the processor multiplies them, unsigned, with signed activations.
template <QuantType T>
inline int32_t quant_start(int32_t start) {
#if defined(__AVX2__)
  if constexpr (T == QuantType::fp4) return start + start / 2;  // twice the value + 12
#endif
#if defined(__AVX512F__)
  if constexpr (T == QuantType::q8) return start * 16;  // + 128
#endif
  return T == QuantType::q4 ? start : 0;
}

// Few rows wait for weights to come from memory: what the processor fetches by itself ends with every page. Codes are
// fetched some blocks ahead, past the scales into the next panel, and the scales of the next panel with those of this
// one, which are read from their first on while codes are. (Inlined by force: GCC 12 takes a call that only fetches for
// one without effect.)
inline constexpr int kFewRows = 4;
template <QuantType T>
inline __attribute__((always_inline)) void fetch_ahead(const QuantProduct& g, const uint8_t* codes,
                                                       const uint8_t* scales, int64_t block) {
  constexpr int64_t kAhead = 4096 / quant_code_bytes(T);
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* next = codes + kAhead * quant_code_bytes(T);
  if (block + kAhead >= blocks) next += blocks * quant_scale_bytes(T);
  for (int64_t i = 0; i < quant_code_bytes(T); i += 64) __builtin_prefetch(next + i, 0, 2);
  if (block * quant_scale_bytes(T) % 64 == 0) __builtin_prefetch(scales + quant_panel_bytes(T, g.k), 0, 2);
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

#if defined(__AVX2__)

// Numbers of codes 0 to 15, `more` added.
template <QuantType T>
inline __m128i nibble_table(int more) {
  const __m128i m = _mm_set1_epi8(static_cast<char>(more));
  if constexpr (T == QuantType::fp4)  // twice their values
    return _mm_add_epi8(m, _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
  const __m128i codes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm_add_epi8(m, T == QuantType::q4 ? _mm_sub_epi8(codes, _mm_set1_epi8(8)) : codes);
}

#endif

#if defined(__AVX512F__)

template <QuantType T>
inline __m512i nibble_values(int more) {
  return _mm512_broadcast_i32x4(nibble_table<T>(more));
}

// Groups 2i and 2i + 1 of a block, as the unsigned operand.
template <QuantType T>
inline void load_groups(const uint8_t* codes, int i, __m512i& even, __m512i& odd) {
  if constexpr (T != QuantType::q8) {
    const __m512i x = _mm512_loadu_si512(codes + i * 64), low = _mm512_set1_epi8(0x0f);
    even = _mm512_and_si512(x, low);
    odd = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
    if constexpr (T == QuantType::fp4) {
      even = _mm512_shuffle_epi8(nibble_values<T>(12), even);
      odd = _mm512_shuffle_epi8(nibble_values<T>(12), odd);
    }
  } else {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    even = _mm512_xor_si512(_mm512_loadu_si512(codes + i * 128), sign);
    odd = _mm512_xor_si512(_mm512_loadu_si512(codes + i * 128 + 64), sign);
  }
}

// Scales (and minima) of 16 rows of weights, what they make of the sums of a block.
template <QuantType T>
struct BlockScales {
  V scale, minimum;
  explicit BlockScales(const uint8_t* p) {
    if constexpr (T == QuantType::fp4) {  // 2^-127 is no normal number; codes are twice their values
      const __m512i bits =
          _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 23);
      scale = _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(0x400000))) * set1(0.5f);
    } else {
      scale = halves(p);
    }
    if constexpr (T == QuantType::q4_1) minimum = halves(p + 2 * kPanel);
  }
  static V halves(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  inline __attribute__((always_inline)) void add(__m512i dot, float a_scale, float a_sum, V& to) const {
    to = fma(_mm512_cvtepi32_ps(dot), scale * set1(a_scale), to);
    if constexpr (T == QuantType::q4_1) to = fma(minimum, set1(a_sum), to);
  }
};

template <QuantType T, int R>
inline void quant_rows(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  const float *a_scale = g.a.scale + row * blocks, *a_sum = g.a.sum + row * blocks;
  const int32_t* a_start = g.a.start + row * blocks;
  V sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r] = set1(0.f);
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += quant_scale_bytes(T), a += kQuantBlock) {
    if constexpr (R <= kFewRows) fetch_ahead<T>(g, codes, scales, b);
    __m512i dot[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) dot[r] = _mm512_set1_epi32(quant_start<T>(a_start[r * blocks + b]));
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
    const BlockScales<T> w(scales);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) w.add(dot[r], a_scale[r * blocks + b], a_sum[r * blocks + b], sum[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store_quant(g, sum[r], row + r, panel * kPanel);
}

#elif defined(__AVX2__)

inline __m256i broadcast_codes(const int8_t* p) { return _mm256_set1_epi32(four_codes(p)); }

// pair[r] += the products of groups 2i and 2i + 1 of half a block, 16 bits each.
template <QuantType T, int R>
inline void add_nibbles(const uint8_t* codes, const int8_t* a, int64_t a_row, int i, __m256i (&pair)[R]) {
  const __m256i low = _mm256_set1_epi8(0x0f);
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i * 64));
  __m256i even = _mm256_and_si256(x, low), odd = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
  if constexpr (T == QuantType::fp4) {
    const __m256i values = _mm256_broadcastsi128_si256(nibble_table<T>(12));
    even = _mm256_shuffle_epi8(values, even);
    odd = _mm256_shuffle_epi8(values, odd);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    pair[r] = _mm256_add_epi16(pair[r], _mm256_maddubs_epi16(even, broadcast_codes(a + r * a_row + i * 8)));
    pair[r] = _mm256_add_epi16(pair[r], _mm256_maddubs_epi16(odd, broadcast_codes(a + r * a_row + i * 8 + 4)));
  }
}

// The integer sums of half a block of weights (8 rows) with R rows of activations; sums start at 0.
template <QuantType T, int R>
inline void dot_half(const uint8_t* codes, const int8_t* a, int64_t a_row, __m256i (&dot)[R]) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (T != QuantType::q8) {
    // 15 * 127 * 2 * 8 fits 16 bits, of FP4 24 * 127 * 2 * 4: widened once or twice a block.
    constexpr int kAtOnce = T == QuantType::fp4 ? 2 : 4;
#pragma GCC unroll 2
    for (int first = 0; first < 4; first += kAtOnce) {
      __m256i pair[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) pair[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int i = first; i < first + kAtOnce; ++i) add_nibbles<T, R>(codes, a, a_row, i, pair);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m256i sums = _mm256_madd_epi16(pair[r], ones);
        dot[r] = first == 0 ? sums : _mm256_add_epi32(dot[r], sums);
      }
    }
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

// Scales (and minima) of 8 rows of weights, half h of a block, and what they make of its sums.
template <QuantType T>
struct HalfScales {
  V scale, minimum;
  HalfScales(const uint8_t* p, int h) {
    if constexpr (T == QuantType::fp4) {  // 2^-127 is no normal number; codes are twice their values
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + h * kLanes));
      const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
      scale = _mm256_castsi256_ps(_mm256_max_epi32(bits, _mm256_set1_epi32(0x400000))) * set1(0.5f);
    } else {
      scale = halves(p + h * 2 * kLanes);
    }
    if constexpr (T == QuantType::q4_1) minimum = halves(p + 2 * kPanel + h * 2 * kLanes);
  }
  static V halves(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  void add(__m256i dot, float a_scale, float a_sum, V& to) const {
    to = fma(_mm256_cvtepi32_ps(dot), scale * set1(a_scale), to);
    if constexpr (T == QuantType::q4_1) to = fma(minimum, set1(a_sum), to);
  }
};

// Halves [first, last) of a panel.
template <QuantType T, int R, int kFirst, int kLast>
inline void quant_halves(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  const float *a_scale = g.a.scale + row * blocks, *a_sum = g.a.sum + row * blocks;
  const int32_t* a_start = g.a.start + row * blocks;
  V sum[kLast - kFirst][R];
  for (auto& half : sum)
    for (V& v : half) v = set1(0.f);
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += quant_scale_bytes(T), a += kQuantBlock) {
    if constexpr (R <= kFewRows) fetch_ahead<T>(g, codes, scales, b);
#pragma GCC unroll 2
    for (int h = kFirst; h < kLast; ++h) {
      __m256i dot[R];
      dot_half<T, R>(codes + h * 32, a, g.k, dot);
      const HalfScales<T> w(scales, h);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m256i start = _mm256_set1_epi32(quant_start<T>(a_start[r * blocks + b]));
        w.add(_mm256_add_epi32(dot[r], start), a_scale[r * blocks + b], a_sum[r * blocks + b], sum[h - kFirst][r]);
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

inline float half_at(const uint8_t* p) {
  uint16_t half;
  __builtin_memcpy(&half, p, 2);
  return half_to_float(half);
}

// Number q of group i of a row, as it is multiplied; codes are the row's in the first group.
template <QuantType T>
inline int32_t quant_number(const uint8_t* codes, int i, int q) {
  const uint8_t w = codes[(T == QuantType::q8 ? i : i / 2) * 64 + q];
  if constexpr (T == QuantType::q8) return static_cast<int8_t>(w);
  const int32_t code = i % 2 ? w >> 4 : w & 15;
  if constexpr (T != QuantType::fp4) return code;
  const int32_t size = code & 7, twice = size < 5 ? size : size == 5 ? 6 : size == 6 ? 8 : 12;
  return code & 8 ? -twice : twice;
}

template <QuantType T>
inline float quant_scale(const uint8_t* scales, int64_t j) {
  if constexpr (T != QuantType::fp4) return half_at(scales + 2 * j);
  const uint32_t bits = scales[j] ? static_cast<uint32_t>(scales[j]) << 23 : 0x400000u;
  float v;
  __builtin_memcpy(&v, &bits, 4);
  return v * 0.5f;  // codes are twice their values
}

template <QuantType T, int R>
inline void quant_rows(const QuantProduct& g, int64_t row, int64_t panel) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* codes = g.panels + panel * quant_panel_bytes(T, g.k);
  const uint8_t* scales = codes + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  float sum[kPanel] = {};
  for (int64_t b = 0; b < blocks; ++b, codes += quant_code_bytes(T), scales += quant_scale_bytes(T), a += kQuantBlock) {
    const float a_scale = g.a.scale[row * blocks + b];
    for (int64_t j = 0; j < kPanel; ++j) {
      int32_t dot = quant_start<T>(g.a.start[row * blocks + b]);
      for (int i = 0; i < 8; ++i)
        for (int q = 0; q < 4; ++q) dot += quant_number<T>(codes + j * 4, i, q) * a[i * 4 + q];
      sum[j] = __builtin_fmaf(static_cast<float>(dot), quant_scale<T>(scales, j) * a_scale, sum[j]);
      if (T == QuantType::q4_1)
        sum[j] = __builtin_fmaf(half_at(scales + 2 * (kPanel + j)), g.a.sum[row * blocks + b], sum[j]);
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
