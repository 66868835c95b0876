// Blocks of whole numbers of few bits with half-float scales, chosen by their squared error. Codes are the nearest of
// the scale as it is stored, so a block is never worse than ggml's, whose scale is one of those tried. Sums of 32
// numbers are halved to 16, 8 and so on whatever the width of a vector: equal bits at every instruction set.
#include "kernels/gemm/quantise.h"

#include "core/bf16.h"
#include "kernels/gemm/stored_values.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int kBlock = 32, kParts = kBlock / kLanes;
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
                                             : half_value(half_bits(magnitude));
  return d < 0 ? -kept : kept;
}
float as_offset(float m) {  // not -0, which a smallest number may be or not
  return m < -65504.f ? -65504.f : m > 65504.f ? 65504.f : half_value(half_bits(m)) + 0.f;
}

// 32 numbers.
struct Block {
  V v[kParts];
};
Block block_at(const float* x) {
  Block b;
  for (int i = 0; i < kParts; ++i) b.v[i] = load(x + i * kLanes);
  return b;
}
template <class F>
Block map(const Block& x, F f) {
  Block b;
  for (int i = 0; i < kParts; ++i) b.v[i] = f(x.v[i]);
  return b;
}
template <class F>
V fold(Block b, F f) {
  for (int half = kParts / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) b.v[i] = f(b.v[i], b.v[half + i]);
  return b.v[0];
}
float sum_of(const Block& b) {
  return reduce_add(fold(b, [](V x, V y) { return x + y; }));
}
float max_of(const Block& b) {
  return reduce_max(fold(b, [](V x, V y) { return max(x, y); }));
}

struct Range {
  float min, max;
  bool finite;
  float extreme() const { return max >= -min ? max : min; }
  float magnitude() const { return max >= -min ? max : -min; }
};
Range range(const Block& x) {
  const bool finite = sum_of(map(x, [](V v) { return v * set1(0.f); })) == 0;
  return {-max_of(map(x, [](V v) { return -v; })), max_of(x), finite};
}

// x is about d q + m with whole q from low to high.
struct Fit {
  float d = 0, m = 0, low, high;
  float inverse() const { return d == 0 ? 0.f : 1.f / d; }
};
Block nearest_codes(const Block& x, const Fit& f) {
  const V inverse = set1(f.inverse()), m = set1(f.m), low = set1(f.low), high = set1(f.high), magic = set1(0x1.8p23f);
  return map(x, [=](V v) { return (min(max((v - m) * inverse, low), high) + magic) - magic; });
}
float squared_error(const Block& x, const Fit& f) {
  const V d = set1(f.d), m = set1(f.m);
  Block e = nearest_codes(x, f);
  for (int i = 0; i < kParts; ++i) {
    const V error = x.v[i] - (d * e.v[i] + m);
    e.v[i] = error * error;
  }
  return sum_of(e);
}
// q less `from`.
void codes(const Block& x, const Fit& f, int from, int8_t* __restrict q) {
  const Block nearest = nearest_codes(x, f);
  float values[kBlock];
  for (int i = 0; i < kParts; ++i) store(values + i * kLanes, nearest.v[i]);
  for (int i = 0; i < kBlock; ++i) q[i] = static_cast<int8_t>(static_cast<int>(values[i]) - from);
}

// Scales of the number of largest magnitude times each of `parts`.
template <int count>
Fit symmetric_fit(const Block& x, float extreme, const float (&parts)[count], float low, float high) {
  Fit best{0, 0, low, high};
  float least = 0;
  for (int i = 0; i < count; ++i) {
    const Fit f{as_scale(extreme * parts[i]), 0, low, high};
    const float error = squared_error(x, f);
    if (i == 0 || error < least) best = f, least = error;
  }
  return best;
}

// From the smallest to the largest number, then twice the least squares of the codes before.
Fit affine_fit(const Block& x, const Range& r, float high) {
  Fit f{as_scale((r.max - r.min) / high), as_offset(r.min), 0, high}, best = f;
  float least = squared_error(x, f);
  const float first = f.m;
  const Block above = map(x, [=](V v) { return v - set1(first); });
  const float sum = sum_of(above);
  for (int round = 0; round < 2; ++round) {
    const Block q = nearest_codes(x, f);
    Block product = q;
    for (int i = 0; i < kParts; ++i) product.v[i] = q.v[i] * above.v[i];
    const float s = sum_of(q), ss = sum_of(map(q, [](V v) { return v * v; })), sx = sum_of(product);
    const float determinant = kBlock * ss - s * s;
    if (determinant == 0) return best;
    f.d = as_scale((kBlock * sx - s * sum) / determinant);
    f.m = as_offset(first + (ss * sum - s * sx) / determinant);
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

constexpr float kQ5Parts[] = {-1 / 16.f, -1 / 15.5f, -1 / 15.f, -1 / 16.5f, -1 / 17.f},
                kQ4Parts[] = {-1 / 8.f,   -1 / 7.75f, -1 / 7.5f,  -1 / 7.25f, -1 / 7.f,
                              -1 / 8.25f, -1 / 8.5f,  -1 / 8.75f, -1 / 9.f};

void block_q8_0(const float* in, uint8_t* out) {
  const Block x = block_at(in);
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 34);
  const Fit f = {as_scale(r.magnitude() / 127), 0, -127, 127};
  put(out, half_bits(f.d));
  codes(x, f, 0, reinterpret_cast<int8_t*>(out + 2));
}
void block_q4_0(const float* in, uint8_t* out) {
  const Block x = block_at(in);
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 18);
  const Fit f = symmetric_fit(x, r.extreme(), kQ4Parts, -8, 7);
  int8_t q[kBlock];
  codes(x, f, -8, q);
  put(out, half_bits(f.d));
  put_nibbles(q, out + 2);
}
void block_q5_0(const float* in, uint8_t* out) {
  const Block x = block_at(in);
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 22);
  const Fit f = symmetric_fit(x, r.extreme(), kQ5Parts, -16, 15);
  int8_t q[kBlock];
  codes(x, f, -16, q);
  put(out, half_bits(f.d));
  put_fifth_bits(q, out + 2);
  put_nibbles(q, out + 6);
}
void block_q4_1(const float* in, uint8_t* out) {
  const Block x = block_at(in);
  const Range r = range(x);
  if (!r.finite) return put_nan(out, 20);
  const Fit f = affine_fit(x, r, 15);
  int8_t q[kBlock];
  codes(x, f, 0, q);
  put(out, half_bits(f.d));
  put(out + 2, half_bits(f.m));
  put_nibbles(q, out + 4);
}
void block_q5_1(const float* in, uint8_t* out) {
  const Block x = block_at(in);
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

// From 0 to the magnitudes .5, 1, 1.5, 2, 3, 4, 6: where each begins to be the nearest, and the step there.
constexpr float kE2m1From[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.f};
constexpr float kE2m1Step[] = {0.5f, 0.5f, 0.5f, 0.5f, 1.f, 1.f, 2.f};

// In units of the scale.
float mxfp4_error(const Block& x, float inverse) {
  return sum_of(map(x, [=](V v) {
    const V a = max(v, -v) * set1(inverse);
    V nearest = set1(6.f);
    for (int i = 0; i < 7; ++i) nearest = nearest - unless_above(a, set1(kE2m1From[i]), set1(kE2m1Step[i]));
    return (a - nearest) * (a - nearest);
  }));
}
// 2^(127 - e)
float mxfp4_inverse(int e) { return e == 254 ? 0x1p-127f : from_bits(static_cast<uint32_t>(254 - e) << 23); }

// The largest number falls between 4 and 8 times the scale, of which 6 is the most, or with the next scale between 2
// and 4.
void block_mxfp4(const float* in, uint8_t* out) {
  const Block x = block_at(in);
  const Range r = range(x);
  for (int i = 1; i < 17; ++i) out[i] = 0;
  if (!r.finite) {
    out[0] = 255;
    return;
  }
  const float largest = r.magnitude();
  uint32_t bits;
  __builtin_memcpy(&bits, &largest, 4);
  const int exponent = static_cast<int>(bits >> 23 & 255u);  // of -0 as of 0
  int e = exponent > 2 ? exponent - 2 : 0;
  const float wider = mxfp4_error(x, mxfp4_inverse(e + 1));  // in units of a scale twice as large
  if (4 * wider < mxfp4_error(x, mxfp4_inverse(e))) ++e;
  const float inverse = mxfp4_inverse(e);
  int8_t q[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    const float scaled = in[i] * inverse, a = scaled < 0 ? -scaled : scaled;
    int code = 0;
    for (int k = 0; k < 7; ++k) code += a > kE2m1From[k];
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
