// Blocks of whole numbers of few bits with half-float scales, chosen by their squared error. Codes are the nearest of
// the scale as it is stored, so a block is never worse than ggml's, whose scale is one of those tried. Plain loops over
// 16 lanes, sums by lane and the lanes in a fixed order: equal bits at every instruction set.
#include "kernels/gemm/quantise.h"

#include "core/bf16.h"
#include "kernels/gemm/stored_values.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int kBlock = 32, kStrip = 16;
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

// A scale as a half float holds it: at most its largest number, and not 0 unless it is.
float as_scale(float d) {
  constexpr float kSmallest = 0x1p-24f, kLargest = 65504.f;
  const float magnitude = d < 0 ? -d : d;
  if (magnitude == 0) return 0;
  const float kept = magnitude > kLargest    ? kLargest
                     : magnitude < kSmallest ? kSmallest
                                             : f16_value(half_bits(magnitude));
  return d < 0 ? -kept : kept;
}
float as_offset(float m) { return m < -65504.f ? -65504.f : m > 65504.f ? 65504.f : f16_value(half_bits(m)); }

float sum_of(float* lanes) {
  for (int half = kStrip / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[half + i];
  return lanes[0];
}

struct Range {
  float min, max;
  bool finite;
  float extreme() const { return max >= -min ? max : min; }
};
Range range(const float* x) {
  float low[kStrip], high[kStrip], zero[kStrip];
  for (int i = 0; i < kStrip; ++i) {
    const float a = x[i], b = x[kStrip + i];
    low[i] = a < b ? a : b;
    high[i] = a > b ? a : b;
    zero[i] = a * 0.f + b * 0.f;
  }
  Range r{low[0], high[0], sum_of(zero) == 0};
  for (int i = 1; i < kStrip; ++i) {
    r.min = low[i] < r.min ? low[i] : r.min;
    r.max = high[i] > r.max ? high[i] : r.max;
  }
  return r;
}

// The nearest whole number from low to high.
float nearest(float x, float low, float high) {
  const float kept = x < low ? low : x > high ? high : x;
  return (kept + 0x1.8p23f) - 0x1.8p23f;
}

// x is about d q + m with whole q from low to high.
struct Fit {
  float d = 0, m = 0, low, high;
  float inverse() const { return d == 0 ? 0.f : 1.f / d; }
};
float squared_error(const float* __restrict x, const Fit& f) {
  const float inverse = f.inverse(), d = f.d, m = f.m, low = f.low, high = f.high;
  float sums[kStrip];
  for (int i = 0; i < kStrip; ++i) {
    const float a = x[i] - (d * nearest((x[i] - m) * inverse, low, high) + m);
    const float b = x[kStrip + i] - (d * nearest((x[kStrip + i] - m) * inverse, low, high) + m);
    sums[i] = a * a + b * b;
  }
  return sum_of(sums);
}
// q less `from`.
void codes(const float* __restrict x, const Fit& f, int from, int8_t* __restrict q) {
  const float inverse = f.inverse(), m = f.m, low = f.low, high = f.high;
  for (int i = 0; i < kBlock; ++i)
    q[i] = static_cast<int8_t>(static_cast<int>(nearest((x[i] - m) * inverse, low, high)) - from);
}

// The number of largest magnitude is about `steps` times the scale, which has its sign or the other.
template <int count>
Fit symmetric_fit(const float* x, float extreme, const float (&steps)[count], float low, float high) {
  Fit best{0, 0, low, high};
  float least = 0;
  for (int i = 0; i < count; ++i) {
    const Fit f{as_scale(extreme / steps[i]), 0, low, high};
    const float error = squared_error(x, f);
    if (i == 0 || error < least) best = f, least = error;
  }
  return best;
}

// From the smallest to the largest number, then twice the least squares of the codes before.
Fit affine_fit(const float* x, const Range& r, float high) {
  Fit f{as_scale((r.max - r.min) / high), as_offset(r.min), 0, high}, best = f;
  float least = squared_error(x, f);
  for (int round = 0; round < 2; ++round) {
    int8_t q[kBlock];
    codes(x, f, 0, q);
    double s = 0, ss = 0, sx = 0, sum = 0;
    for (int i = 0; i < kBlock; ++i) {
      const double c = q[i], v = static_cast<double>(x[i]);
      s += c, ss += c * c, sx += c * v, sum += v;
    }
    const double determinant = kBlock * ss - s * s;
    if (determinant == 0) return best;
    f.d = as_scale(static_cast<float>((kBlock * sx - s * sum) / determinant));
    f.m = as_offset(static_cast<float>((ss * sum - s * sx) / determinant));
    const float error = squared_error(x, f);
    if (error < least) best = f, least = error;
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

// A block that holds a number that is not finite: a scale that is NaN, so that every element is read as NaN.
void put_nan(uint8_t* out, int bytes) {
  for (int i = 2; i < bytes; ++i) out[i] = 0;
  put(out, kHalfNan);
}

constexpr float kSteps8[] = {127}, kSteps5[] = {-16, -15.5, -15, -16.5, -17},
                kSteps4[] = {-8, -7.75, -7.5, -7.25, -7, -8.25, -8.5, -8.75, -9};

void block_q8_0(const float* x, uint8_t* out) {
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 34);
  const Fit f = {as_scale((r.max >= -r.min ? r.max : -r.min) / kSteps8[0]), 0, -127, 127};
  put(out, half_bits(f.d));
  codes(x, f, 0, reinterpret_cast<int8_t*>(out + 2));
}
void block_q4_0(const float* x, uint8_t* out) {
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 18);
  const Fit f = symmetric_fit(x, r.extreme(), kSteps4, -8, 7);
  int8_t q[kBlock];
  codes(x, f, -8, q);
  put(out, half_bits(f.d));
  put_nibbles(q, out + 2);
}
void block_q5_0(const float* x, uint8_t* out) {
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 22);
  const Fit f = symmetric_fit(x, r.extreme(), kSteps5, -16, 15);
  int8_t q[kBlock];
  codes(x, f, -16, q);
  put(out, half_bits(f.d));
  put_fifth_bits(q, out + 2);
  put_nibbles(q, out + 6);
}
void block_q4_1(const float* x, uint8_t* out) {
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 20);
  const Fit f = affine_fit(x, r, 15);
  int8_t q[kBlock];
  codes(x, f, 0, q);
  put(out, half_bits(f.d));
  put(out + 2, half_bits(f.m));
  put_nibbles(q, out + 4);
}
void block_q5_1(const float* x, uint8_t* out) {
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 24);
  const Fit f = affine_fit(x, r, 31);
  int8_t q[kBlock];
  codes(x, f, 0, q);
  put(out, half_bits(f.d));
  put(out + 2, half_bits(f.m));
  put_fifth_bits(q, out + 4);
  put_nibbles(q, out + 8);
}

// Magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6: steps of a half, of one and of two.
struct E2m1Steps {
  int halves, ones, twos;
};
E2m1Steps e2m1_steps(float a) {
  return {(a > 0.25f) + (a > 0.75f) + (a > 1.25f) + (a > 1.75f), (a > 2.5f) + (a > 3.5f), a > 5.f};
}
float mxfp4_error(const float* __restrict x, float inverse) {
  float sums[kStrip] = {};
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < kStrip; ++i) {
      const float scaled = x[kStrip * h + i] * inverse, a = scaled < 0 ? -scaled : scaled;
      const E2m1Steps s = e2m1_steps(a);
      const float e = a - 0.5f * static_cast<float>(s.halves + 2 * s.ones + 4 * s.twos);
      sums[i] += e * e;
    }
  }
  return sum_of(sums);
}
// 2^(127 - e)
float mxfp4_inverse(int e) { return e == 254 ? 0x1p-127f : from_bits(static_cast<uint32_t>(254 - e) << 23); }

// The largest number falls between 4 and 8 times the scale, of which 6 is the most, or with the next scale between 2
// and 4.
void block_mxfp4(const float* x, uint8_t* out) {
  const Range r = range(x);
  for (int i = 1; i < 17; ++i) out[i] = 0;
  if (!r.finite) {
    out[0] = 255;
    return;
  }
  const float largest = r.max >= -r.min ? r.max : -r.min;
  uint32_t bits;
  __builtin_memcpy(&bits, &largest, 4);
  const int exponent = static_cast<int>(bits >> 23);
  int e = exponent > 2 ? exponent - 2 : 0;
  const float wider = mxfp4_error(x, mxfp4_inverse(e + 1));  // in units of a scale twice as large
  if (4 * wider < mxfp4_error(x, mxfp4_inverse(e))) ++e;
  const float inverse = mxfp4_inverse(e);
  int8_t q[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    const float scaled = x[i] * inverse, a = scaled < 0 ? -scaled : scaled;
    const E2m1Steps s = e2m1_steps(a);
    const int code = s.halves + s.ones + s.twos;
    q[i] = static_cast<int8_t>(code | (scaled < 0 && code > 0 ? 8 : 0));
  }
  out[0] = static_cast<uint8_t>(e);
  put_nibbles(q, out + 1);
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
template <void (*block)(const float*, uint8_t*), StoredType type>
void row_of(const float* in, int64_t cols, uint8_t* out) {
  constexpr StoredFormat f = stored_format(type);
  static_assert(f.block_elements == kBlock);
  for (int64_t c = 0; c < cols; c += kBlock, out += f.block_bytes) block(in + c, out);
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
      return row_of<block_q4_0, T::q4_0>;
    case T::q4_1:
      return row_of<block_q4_1, T::q4_1>;
    case T::q5_0:
      return row_of<block_q5_0, T::q5_0>;
    case T::q5_1:
      return row_of<block_q5_1, T::q5_1>;
    case T::mxfp4:
      return row_of<block_mxfp4, T::mxfp4>;
    default:
      return row_of<block_q8_0, T::q8_0>;
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
