// Vectors two at a time, for element-wise passes over bf16 that are bound by the work of widening. Include from
// *.isa.cc only.
#pragma once
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

// Twice kLanes consecutive elements in two vectors, in the order that is cheapest to widen: bf16 even and odd elements,
// fp32 first and second half. Element-wise passes do not care; what they combine must be in the same order. Raw<T> is
// the same as stored in memory.
struct Pair {
  V a, b;
};
inline constexpr int kPairLanes = 2 * kLanes;
template <class T>
struct Raw;
template <>
struct Raw<float> {
  V a, b;
};
inline Pair unpack(Raw<float> r) { return {r.a, r.b}; }
inline V dot(V acc, Raw<float> x, Raw<float> y) { return fma(x.b, y.b, fma(x.a, y.a, acc)); }
inline Raw<float> load_raw(const float* p, int n) {
  if (n == kPairLanes) return {load(p), load(p + kLanes)};
  return n <= kLanes ? Raw<float>{load_n(p, n), set1(0.f)} : Raw<float>{load(p), load_n(p + kLanes, n - kLanes)};
}
inline void store_raw(float* p, Raw<float> r, int n) {
  store_n(p, r.a, n < kLanes ? n : kLanes);
  if (n > kLanes) store_n(p + kLanes, r.b, n - kLanes);
}
inline void pack(Pair v, Raw<float>& r) { r = {v.a, v.b}; }

#if defined(__AVX512F__)
template <>
struct Raw<bf16> {
  __m512i bits;
};
inline Pair unpack(Raw<bf16> r) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(r.bits, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(r.bits, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline V dot(V acc, Raw<bf16> x, Raw<bf16> y) { return _mm512_dpbf16_ps(acc, (__m512bh)x.bits, (__m512bh)y.bits); }
inline Raw<bf16> load_raw(const bf16* p, int n) {
  if (n == kPairLanes) return {_mm512_loadu_si512(p)};
  return {_mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p)};
}
inline void store_raw(bf16* p, Raw<bf16> r, int n) {
  if (n == kPairLanes)
    _mm512_storeu_si512(p, r.bits);
  else
    _mm512_mask_storeu_epi16(p, static_cast<__mmask32>((uint64_t{1} << n) - 1), r.bits);
}
inline void pack(Pair v, Raw<bf16>& r) {
  r.bits =
      _mm512_or_si512(_mm512_cvtepu16_epi32(narrow(v.a)), _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(v.b)), 16));
}
#elif defined(__AVX2__)
template <>
struct Raw<bf16> {
  __m256i bits;
};
inline Pair unpack(Raw<bf16> r) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(r.bits, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(r.bits, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline V dot(V acc, Raw<bf16> x, Raw<bf16> y) {
  const Pair u = unpack(x), v = unpack(y);
  return fma(u.b, v.b, fma(u.a, v.a, acc));
}
inline Raw<bf16> load_raw(const bf16* p, int n) {
  if (n == kPairLanes) return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  bf16 t[kPairLanes] = {};
  for (int i = 0; i < n; ++i) t[i] = p[i];
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(t))};
}
inline void store_raw(bf16* p, Raw<bf16> r, int n) {
  if (n == kPairLanes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r.bits);
  bf16 t[kPairLanes];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(t), r.bits);
  for (int i = 0; i < n; ++i) p[i] = t[i];
}
inline void pack(Pair v, Raw<bf16>& r) {
  r.bits = _mm256_blend_epi16(_mm256_srli_epi32(round_bits(v.a), 16), round_bits(v.b), 0xaa);
}
#else
template <>
struct Raw<bf16> {
  bf16 a, b;
};
inline Pair unpack(Raw<bf16> r) { return {to_float(r.a), to_float(r.b)}; }
inline V dot(V acc, Raw<bf16> x, Raw<bf16> y) {
  const Pair u = unpack(x), v = unpack(y);
  return fma(u.b, v.b, fma(u.a, v.a, acc));
}
inline Raw<bf16> load_raw(const bf16* p, int n) { return {p[0], n > 1 ? p[1] : to_bf16(0.f)}; }
inline void store_raw(bf16* p, Raw<bf16> r, int n) {
  p[0] = r.a;
  if (n > 1) p[1] = r.b;
}
inline void pack(Pair v, Raw<bf16>& r) { r = {to_bf16(v.a), to_bf16(v.b)}; }
#endif

inline Pair operator*(V k, Pair v) { return {k * v.a, k * v.b}; }
inline Pair fma(V k, Pair x, Pair acc) { return {fma(k, x.a, acc.a), fma(k, x.b, acc.b)}; }
// fp32 in the order of the pairs, kPairLanes floats each, padded: working memory of a pass.
inline Pair load_arranged(const float* p) { return {load(p), load(p + kLanes)}; }
inline void store_arranged(float* p, Pair v) {
  store(p, v.a);
  store(p + kLanes, v.b);
}
// f(i, n) for every pair of a row of `count` elements: n == kPairLanes except perhaps for the last.
template <class F>
inline void for_pairs(int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + kPairLanes <= count; i += kPairLanes) f(i, kPairLanes);
  if (i < count) f(i, static_cast<int>(count - i));
}

}  // namespace birkhoff::kernels::BK_ISA
