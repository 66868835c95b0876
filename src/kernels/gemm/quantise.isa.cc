// Blocks of whole numbers of few bits with half-float scales, chosen by their squared error. Codes are the nearest of
// the scale as it is stored, so a block is never worse than ggml's, whose scale is one of those tried. As many blocks
// at a time as a vector has lanes, one a lane: a block's numbers are added in one order, in halves of 16, 8 and so on,
// so bits are equal at every instruction set.
#include "kernels/gemm/quantise.h"

#include "core/bf16.h"
#include "kernels/gemm/stored_values.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int kBlock = 32;
constexpr uint16_t kHalfNan = 0x7e00;

uint16_t half_bits(float f) {
#if defined(__AVX2__)
  return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT);
#else
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  const uint32_t sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  uint32_t h = 0x7c00;
  if (magnitude > 0x7f800000u) {
    h = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude < 0x38800000u) {  // subnormal: the sum's last bit has the value of a half's
    const float sum = from_bits(magnitude) + 0.5f;
    __builtin_memcpy(&h, &sum, 4);
    h -= 0x3f000000u;
  } else if (magnitude < 0x477ff000u) {
    h = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | h);
#endif
}
void put(uint8_t* p, uint16_t h) { __builtin_memcpy(p, &h, 2); }

V minus(V x) { return set1(-0.f) - x; }
V magnitude(V x) { return max(x, minus(x)); }
// x as the nearest half float.
V as_half(V x) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
  return half_value(half_bits(x));
#endif
}
constexpr float kLargest = 65504.f;

// A scale as a half float holds it: at most its largest number, and not 0 unless it is.
V as_scale(V d) {
  const V size = magnitude(d), zero = set1(0.f);
  const V kept = where_greater(size, zero, min(max(as_half(size), set1(0x1p-24f)), set1(kLargest)), zero);
  return where_greater(zero, d, minus(kept), kept);
}
V as_offset(V m) {  // not -0, which a smallest number may be or not
  return as_half(min(max(m, set1(-kLargest)), set1(kLargest))) + set1(0.f);
}

// Number i of kLanes blocks.
struct Blocks {
  V v[kBlock];
};
Blocks blocks_at(const float* p) {
  Blocks b;
#if defined(__AVX512F__)
  const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                        _mm512_set1_epi32(kBlock));
  for (int i = 0; i < kBlock; ++i) b.v[i] = _mm512_i32gather_ps(at, p + i, 4);
#elif defined(__AVX2__)
  const __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(kBlock));
  for (int i = 0; i < kBlock; ++i) b.v[i] = _mm256_i32gather_ps(p + i, at, 4);
#else
  for (int i = 0; i < kBlock; ++i) b.v[i] = p[i];
#endif
  return b;
}
// f(i) of the 32 numbers of a block brought together, in halves.
template <class F, class Join>
inline __attribute__((always_inline)) V fold(F f, Join join) {
  V r[kBlock / 2];
#pragma GCC unroll 16
  for (int i = 0; i < kBlock / 2; ++i) r[i] = join(f(i), f(i + kBlock / 2));
  for (int half = kBlock / 4; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) r[i] = join(r[i], r[half + i]);
  return r[0];
}
template <class F>
V sum_over(F f) {
  return fold(f, [](V x, V y) { return x + y; });
}

struct Range {
  V min, max;
  V magnitude() const { return where_greater(minus(min), max, minus(min), max); }
  V extreme() const { return where_greater(minus(min), max, min, max); }
};
Range range(const Blocks& x) {
  const auto larger = [](V a, V b) { return max(a, b); };
  return {minus(fold([&](int i) { return minus(x.v[i]); }, larger)), fold([&](int i) { return x.v[i]; }, larger)};
}

// x is about d q + m with whole q from low to high.
struct Fit {
  V d, m;
  float low, high;
  V inverse() const {
    const V none =
        where_greater(magnitude(d), set1(0.f), set1(0.f), set1(1.f));  // 1 where d is 0, which then divides by 1
    return where_greater(none, set1(0.f), set1(0.f), set1(1.f) / (d + none));
  }
};
struct Codes {  // the nearest of a number
  V inverse, m, low, high;
  explicit Codes(const Fit& f) : inverse(f.inverse()), m(f.m), low(set1(f.low)), high(set1(f.high)) {}
  V operator()(V x) const {
    const V magic = set1(0x1.8p23f);
    return (min(max((x - m) * inverse, low), high) + magic) - magic;
  }
};
V squared_error(const Blocks& x, const Fit& f) {
  const Codes nearest(f);
  return sum_over([&](int i) {
    const V error = x.v[i] - (f.d * nearest(x.v[i]) + f.m);
    return error * error;
  });
}
// q less `from`, a block after the other.
void codes(const Blocks& x, const Fit& f, int from, int8_t* __restrict q) {
  const Codes nearest(f);
  for (int i = 0; i < kBlock; ++i) {
    float values[kLanes];
    store(values, nearest(x.v[i]));
    for (int l = 0; l < kLanes; ++l) q[l * kBlock + i] = static_cast<int8_t>(static_cast<int>(values[l]) - from);
  }
}

// Scales of the number of largest magnitude times each of `parts`.
template <int count>
Fit symmetric_fit(const Blocks& x, V extreme, const float (&parts)[count], float low, float high) {
  Fit best{as_scale(extreme * set1(parts[0])), set1(0.f), low, high};
  V least = squared_error(x, best);
  for (int i = 1; i < count; ++i) {
    const Fit f{as_scale(extreme * set1(parts[i])), set1(0.f), low, high};
    const V error = squared_error(x, f);
    best.d = where_greater(least, error, f.d, best.d);
    least = where_greater(least, error, error, least);
  }
  return best;
}

// From the smallest to the largest number, then twice the least squares of the codes before.
Fit affine_fit(const Blocks& x, const Range& r, float high) {
  const V zero = set1(0.f), count = set1(kBlock);
  Fit f{as_scale((r.max - r.min) / set1(high)), as_offset(r.min), 0, high}, best = f;
  V least = squared_error(x, f), open = set1(1.f);  // 0 once the codes of a block are all one
  const V first = f.m;
  const V sum = sum_over([&](int i) { return x.v[i] - first; });
  for (int round = 0; round < 2; ++round) {
    const Codes nearest(f);
    Blocks q;
    for (int i = 0; i < kBlock; ++i) q.v[i] = nearest(x.v[i]);
    const V s = sum_over([&](int i) { return q.v[i]; }), ss = sum_over([&](int i) { return q.v[i] * q.v[i]; }),
            sx = sum_over([&](int i) { return q.v[i] * (x.v[i] - first); });
    const V determinant = count * ss - s * s;
    open = where_greater(magnitude(determinant), zero, open, zero);
    f.d = as_scale((count * sx - s * sum) / determinant);
    f.m = as_offset(first + (ss * sum - s * sx) / determinant);
    const V error = squared_error(x, f), bound = where_greater(open, zero, least, set1(-1.f));
    best.d = where_greater(bound, error, f.d, best.d);
    best.m = where_greater(bound, error, f.m, best.m);
    least = where_greater(bound, error, error, least);
  }
  return best;
}

void put_nibbles(const int8_t* __restrict q, uint8_t* __restrict out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((q[i] & 15) | (q[16 + i] & 15) << 4);
}
void put_fifth_bits(const int8_t* q, uint8_t* out) {
  uint32_t bits = 0;
  for (int i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  __builtin_memcpy(out, &bits, 4);
}

constexpr float kQ5Parts[] = {-1 / 16.f, -1 / 15.5f, -1 / 15.f, -1 / 16.5f, -1 / 17.f},
                kQ4Parts[] = {-1 / 8.f,   -1 / 7.75f, -1 / 7.5f,  -1 / 7.25f, -1 / 7.f,
                              -1 / 8.25f, -1 / 8.5f,  -1 / 8.75f, -1 / 9.f};

// kLanes blocks at once to out[lane].
using Rounding = void (*)(const Blocks& x, uint8_t* const (&out)[kLanes]);

template <class F>
void for_blocks(const Blocks& x, const Fit& f, int from, F&& write) {
  int8_t q[kLanes * kBlock];
  float d[kLanes], m[kLanes];
  codes(x, f, from, q);
  store(d, f.d);
  store(m, f.m);
  for (int l = 0; l < kLanes; ++l) write(l, half_bits(d[l]), half_bits(m[l]), q + l * kBlock);
}

void blocks_q8_0(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  const Fit f = {as_scale(range(x).magnitude() / set1(127.f)), set1(0.f), -127, 127};
  for_blocks(x, f, 0, [&](int l, uint16_t d, uint16_t, const int8_t* q) {
    put(out[l], d);
    __builtin_memcpy(out[l] + 2, q, kBlock);
  });
}
void blocks_q4_0(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  const Fit f = symmetric_fit(x, range(x).extreme(), kQ4Parts, -8, 7);
  for_blocks(x, f, -8, [&](int l, uint16_t d, uint16_t, const int8_t* q) {
    put(out[l], d);
    put_nibbles(q, out[l] + 2);
  });
}
void blocks_q5_0(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  const Fit f = symmetric_fit(x, range(x).extreme(), kQ5Parts, -16, 15);
  for_blocks(x, f, -16, [&](int l, uint16_t d, uint16_t, const int8_t* q) {
    put(out[l], d);
    put_fifth_bits(q, out[l] + 2);
    put_nibbles(q, out[l] + 6);
  });
}
void blocks_q4_1(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  for_blocks(x, affine_fit(x, range(x), 15), 0, [&](int l, uint16_t d, uint16_t m, const int8_t* q) {
    put(out[l], d);
    put(out[l] + 2, m);
    put_nibbles(q, out[l] + 4);
  });
}
void blocks_q5_1(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  for_blocks(x, affine_fit(x, range(x), 31), 0, [&](int l, uint16_t d, uint16_t m, const int8_t* q) {
    put(out[l], d);
    put(out[l] + 2, m);
    put_fifth_bits(q, out[l] + 4);
    put_nibbles(q, out[l] + 8);
  });
}

// From 0 to the magnitudes .5, 1, 1.5, 2, 3, 4, 6: where each begins to be the nearest, and the step there.
constexpr float kE2m1From[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.f};
constexpr float kE2m1Step[] = {0.5f, 0.5f, 0.5f, 0.5f, 1.f, 1.f, 2.f};

// The magnitude nearest to a.
V nearest_e2m1(V a) {
  V nearest = set1(6.f);
  for (int i = 0; i < 7; ++i) nearest = nearest - unless_above(a, set1(kE2m1From[i]), set1(kE2m1Step[i]));
  return nearest;
}
// In units of the scale.
V mxfp4_error(const Blocks& x, V inverse) {
  return sum_over([&](int i) {
    const V a = magnitude(x.v[i]) * inverse, error = a - nearest_e2m1(a);
    return error * error;
  });
}
// 2^(127 - e)
float mxfp4_inverse(int e) { return e == 254 ? 0x1p-127f : from_bits(static_cast<uint32_t>(254 - e) << 23); }

// The largest number falls between 4 and 8 times the scale, of which 6 is the most, or with the next scale between 2
// and 4.
void blocks_mxfp4(const Blocks& x, uint8_t* const (&out)[kLanes]) {
  float largest[kLanes], inverse[kLanes], next[kLanes], error[kLanes], wider[kLanes];
  int e[kLanes];
  store(largest, range(x).magnitude());
  for (int l = 0; l < kLanes; ++l) {
    uint32_t bits;
    __builtin_memcpy(&bits, &largest[l], 4);
    const int exponent = static_cast<int>(bits >> 23 & 255u);  // of -0 as of 0
    e[l] = exponent > 2 ? exponent - 2 : 0;
    inverse[l] = mxfp4_inverse(e[l]);
    next[l] = mxfp4_inverse(e[l] + 1);
  }
  store(error, mxfp4_error(x, load(inverse)));
  store(wider, mxfp4_error(x, load(next)));  // in units of a scale twice as large
  for (int l = 0; l < kLanes; ++l)
    if (4 * wider[l] < error[l]) ++e[l], inverse[l] = next[l];
  int8_t q[kLanes * kBlock];
  for (int i = 0; i < kBlock; ++i) {
    float scaled[kLanes];
    store(scaled, x.v[i] * load(inverse));
    for (int l = 0; l < kLanes; ++l) {
      const float a = scaled[l] < 0 ? -scaled[l] : scaled[l];
      int code = 0;
      for (int k = 0; k < 7; ++k) code += a > kE2m1From[k];
      q[l * kBlock + i] = static_cast<int8_t>(code | (scaled[l] < 0 && code > 0 ? 8 : 0));
    }
  }
  for (int l = 0; l < kLanes; ++l) {
    out[l][0] = static_cast<uint8_t>(e[l]);
    put_nibbles(q + l * kBlock, out[l] + 1);
  }
}

void row_f16(const float* in, int64_t cols, uint8_t* out) {
  int64_t c = 0;
#if defined(__AVX2__)
  for (; c + 8 <= cols; c += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * c),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + c), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; c < cols; ++c) put(out + 2 * c, half_bits(in[c]));
}
void row_bf16(const float* in, int64_t cols, uint8_t* out) {
  for (int64_t c = 0; c < cols; ++c) put(out + 2 * c, to_bf16(in[c]).bits);
}
// A block that holds a number that is not finite: a scale that is NaN, so that every element is read as NaN.
void put_nan(StoredType type, uint8_t* out) {
  for (int i = 0; i < stored_format(type).block_bytes; ++i) out[i] = 0;
  if (type == StoredType::mxfp4)
    out[0] = 255;
  else
    put(out, kHalfNan);
}

bool all_finite(const float* x) {
  V poison = set1(0.f);
  for (int i = 0; i < kBlock; i += kLanes) poison = poison + load(x + i) * set1(0.f);
  return reduce_add(poison) == 0;
}

// A row, kLanes blocks at a time; lanes behind its end hold zeros and are dropped.
template <Rounding round, StoredType type>
void row_of(const float* in, int64_t cols, uint8_t* out) {
  constexpr StoredFormat f = stored_format(type);
  static_assert(f.block_elements == kBlock);
  uint8_t dropped[f.block_bytes];
  for (int64_t c = 0; c < cols; c += kLanes * kBlock) {
    const int64_t here = cols - c < kLanes * kBlock ? (cols - c) / kBlock : kLanes;
    float zeros[kLanes * kBlock];
    const float* from = in + c;
    if (here < kLanes) {
      for (int i = 0; i < kLanes * kBlock; ++i) zeros[i] = i < here * kBlock ? from[i] : 0.f;
      from = zeros;
    }
    uint8_t* to[kLanes];
    for (int l = 0; l < kLanes; ++l) to[l] = l < here ? out + (c / kBlock + l) * f.block_bytes : dropped;
    round(blocks_at(from), to);
    for (int l = 0; l < here; ++l)
      if (!all_finite(from + l * kBlock)) put_nan(type, to[l]);
  }
}

using Row = void (*)(const float*, int64_t, uint8_t*);
Row row_function(StoredType type) {
  using T = StoredType;
  switch (type) {
    case T::f16:
      return row_f16;
    case T::bf16:
      return row_bf16;
    case T::q4_0:
      return row_of<blocks_q4_0, T::q4_0>;
    case T::q4_1:
      return row_of<blocks_q4_1, T::q4_1>;
    case T::q5_0:
      return row_of<blocks_q5_0, T::q5_0>;
    case T::q5_1:
      return row_of<blocks_q5_1, T::q5_1>;
    case T::mxfp4:
      return row_of<blocks_mxfp4, T::mxfp4>;
    default:
      return row_of<blocks_q8_0, T::q8_0>;
  }
}

void quantise(StoredType type, const float* in, int64_t rows, int64_t cols, int64_t in_stride, uint8_t* out) {
  const Row row = row_function(type);
  const StoredFormat f = stored_format(type);
  for (int64_t r = 0; r < rows; ++r) row(in + r * in_stride, cols, out + r * (cols / f.block_elements * f.block_bytes));
}

}  // namespace

const QuantiseKernels quantise_kernels = {quantise};

}  // namespace birkhoff::kernels::BK_ISA
