// fp32 vectors of the width of the instruction set this file is compiled for. Include from *.isa.cc only.
//
//   V                   kLanes floats: 16 (avx512, amx), 8 (avx2), 1 (scalar)
//   load / store        float or bf16 memory, unaligned; bf16 is widened on load, rounded to nearest even on store
//   load_n / store_n    the first n lanes only (0 <= n <= kLanes); the others load as 0 and are not written
//   scale2_flushed      scale2 of 0.5 < x < 2 that may give 0 for n <= -126: products of numbers below 2^-126 take a
//                       hundred times as long
//   rounded_to_bf16     what a store to bf16 and a load give
//   reduce_add/_max     in a fixed order, so a sum depends on the data alone
#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "core/bf16.h"

#ifndef BK_ISA
#error "vec.h belongs to sources that are compiled once per instruction set"
#endif

namespace birkhoff::kernels::BK_ISA {

#if defined(__AVX512F__)

using V = __m512;
inline constexpr int kLanes = 16;
inline __mmask16 lanes_mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
inline V set1(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline V load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(lanes_mask(n), p); }
inline V widen(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
inline V load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline V load_n(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(lanes_mask(n), p)); }
inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline void store_n(float* p, V v, int n) { _mm512_mask_storeu_ps(p, lanes_mask(n), v); }
inline __m256i narrow(V v) { return (__m256i)_mm512_cvtneps_pbh(v); }
inline void store(bf16* p, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
inline void store_n(bf16* p, V v, int n) { _mm256_mask_storeu_epi16(p, lanes_mask(n), narrow(v)); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V max(V a, V b) { return _mm512_max_ps(a, b); }
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V sqrt(V a) { return _mm512_sqrt_ps(a); }
inline V round(V a) { return _mm512_roundscale_ps(a, 8); }
// x, or 0 where a > b
inline V unless_above(V a, V b, V x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NGT_UQ), x); }
// x * 2^n for integral n, with gradual underflow and overflow to infinity
inline V scale2(V x, V n) { return _mm512_scalef_ps(x, n); }
inline V scale2_flushed(V x, V n) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, set1(-126.f), _CMP_GT_OQ), x, n);
}
inline V rounded_to_bf16(V v) { return widen(narrow(v)); }
inline float reduce_add(V v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
inline float reduce_max(V v) { return _mm512_reduce_max_ps(v); }

#elif defined(__AVX2__)

using V = __m256;
inline constexpr int kLanes = 8;
inline __m256i lanes_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V set1(float x) { return _mm256_set1_ps(x); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline V load_n(const float* p, int n) { return _mm256_maskload_ps(p, lanes_mask(n)); }
inline V widen(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
inline V load(const bf16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline V load_n(const bf16* p, int n) {
  bf16 t[8] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return load(t);
}
inline void store(float* p, V v) { _mm256_storeu_ps(p, v); }
inline void store_n(float* p, V v, int n) { _mm256_maskstore_ps(p, lanes_mask(n), v); }
// bf16 in the upper half of each lane, rounded to nearest even; the lower half is not zero.
inline __m256i round_bits(V v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
inline __m128i narrow(V v) {
  const __m256i r = _mm256_srli_epi32(round_bits(v), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
inline void store(bf16* p, V v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
inline void store_n(bf16* p, V v, int n) {
  bf16 t[8];
  store(t, v);
  for (int i = 0; i < n; ++i) p[i] = t[i];
}
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V max(V a, V b) { return _mm256_max_ps(a, b); }
inline V min(V a, V b) { return _mm256_min_ps(a, b); }
inline V sqrt(V a) { return _mm256_sqrt_ps(a); }
inline V round(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V unless_above(V a, V b, V x) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_NGT_UQ), x); }
inline V pow2(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
inline V scale2(V x, V n) {  // in two halves: 2^n alone may not be a normal number
  const __m256i i = _mm256_cvtps_epi32(min(max(n, set1(-252.f)), set1(252.f)));
  const __m256i h = _mm256_srai_epi32(i, 1);
  return x * pow2(h) * pow2(_mm256_sub_epi32(i, h));
}
inline V scale2_flushed(V x, V n) { return x * pow2(_mm256_cvtps_epi32(min(set1(128.f), max(set1(-127.f), n)))); }
inline V rounded_to_bf16(V v) {
  return _mm256_castsi256_ps(_mm256_and_si256(round_bits(v), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline float reduce_add(V v) {
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
inline float reduce_max(V v) {
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}

#else

using V = float;
inline constexpr int kLanes = 1;
inline V set1(float x) { return x; }
inline V load(const float* p) { return *p; }
inline V load_n(const float* p, int n) { return n ? *p : 0.f; }
inline V load(const bf16* p) { return to_float(*p); }
inline V load_n(const bf16* p, int n) { return n ? to_float(*p) : 0.f; }
inline void store(float* p, V v) { *p = v; }
inline void store_n(float* p, V v, int n) {
  if (n) *p = v;
}
inline void store(bf16* p, V v) { *p = to_bf16(v); }
inline void store_n(bf16* p, V v, int n) {
  if (n) *p = to_bf16(v);
}
inline V fma(V a, V b, V c) { return __builtin_fmaf(a, b, c); }
inline V max(V a, V b) { return a > b ? a : b; }
inline V min(V a, V b) { return a < b ? a : b; }
inline V sqrt(V a) { return __builtin_sqrtf(a); }
inline V round(V a) { return __builtin_rintf(a); }
inline V unless_above(V a, V b, V x) { return a > b ? 0.f : x; }
inline V scale2(V x, V n) { return __builtin_ldexpf(x, static_cast<int>(min(max(n, -300.f), 300.f))); }
inline V scale2_flushed(V x, V n) { return n > -126.f ? scale2(x, n) : 0.f; }
inline V rounded_to_bf16(V v) { return to_float(to_bf16(v)); }
inline float reduce_add(V v) { return v; }
inline float reduce_max(V v) { return v; }

#endif

// e^x within 1.5 ulp; 0 below -104, +inf above 88.73, NaN for NaN. Cody-Waite reduction and a degree-6 polynomial.
inline V exp(V x) {
  const V c = min(max(set1(-104.f), x), set1(89.f));  // in this operand order a NaN survives
  const V n = round(c * set1(1.44269504f));
  V r = fma(n, set1(-0.693359375f), c);
  r = fma(n, set1(2.12194440e-4f), r);
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  return scale2(fma(p * r, r, r) + set1(1.f), n);
}
inline V sigmoid(V x) { return set1(1.f) / (set1(1.f) + exp(set1(0.f) - x)); }
// Per lane: x where a > b, else y.
inline V where_greater(V a, V b, V x, V y) {
#if defined(__AVX512F__)
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
#elif defined(__AVX2__)
  return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
#else
  return a > b ? x : y;
#endif
}
inline V tanh(V x) {  // 1 - 2/(e^2x + 1), with a series near 0 where that cancels
  const V e = set1(1.f) - set1(2.f) / (exp(x + x) + set1(1.f));
  const V q = x * x;
  const V s = x * fma(q, fma(q, fma(q, set1(-17.f / 315.f), set1(2.f / 15.f)), set1(-1.f / 3.f)), set1(1.f));
  return where_greater(set1(0.01f), q, s, e);
}

// f(i, n) for every vector of a row of `count` elements: n == kLanes except perhaps for the last.
template <class F>
inline void for_lanes(int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, kLanes);
  if (i < count) f(i, static_cast<int>(count - i));
}
// Loads and stores that are whole when n == kLanes; the compiler drops the test in the main loop above.
template <class T>
inline V load_some(const T* p, int n) {
  return n == kLanes ? load(p) : load_n(p, n);
}
template <class T>
inline void store_some(T* p, V v, int n) {
  if (n == kLanes)
    store(p, v);
  else
    store_n(p, v, n);
}

}  // namespace birkhoff::kernels::BK_ISA
