#include "kernels/rows/elementwise.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class From, class To>
void copy_row(const From* from, To* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { store_some(to + i, load_some(from + i, k), k); });
}
template <class From, class To>
void add_row(const From* from, To* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { store_some(to + i, load_some(to + i, k) + load_some(from + i, k), k); });
}

void split(const float* from, bf16* high, bf16* low, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) {
    const V v = load_some(from + i, lanes);
    store_some(high + i, v, lanes);
    store_some(low + i, v - load_some(high + i, lanes), lanes);
  });
}

template <class T>
void encode(const T* from, int64_t n, int8_t* codes, float* scale) {
  V top = set1(0.f), zero = set1(0.f);  // zero: NaN once a number was not finite
  for_lanes(n, [&](int64_t i, int lanes) {
    const V v = load_some(from + i, lanes);
    top = max(top, max(v, set1(0.f) - v));
    zero = zero + v * set1(0.f);
  });
  const float largest = reduce_max(top), nan = reduce_add(zero);
  *scale = largest * (1.f / 127.f) + nan;
  const float inverse = largest > 0.f && largest < __builtin_inff() ? 127.f / largest : 0.f;
  for_lanes(n, [&](int64_t i, int lanes) {
    alignas(64) float whole[kLanes];
    store(whole, round(load_some(from + i, lanes) * set1(inverse)));
    for (int k = 0; k < lanes; ++k) codes[i + k] = static_cast<int8_t>(nan == 0.f ? whole[k] : 0.f);
  });
}

// The first n codes as numbers, zeros behind them.
V load_codes(const int8_t* p, int n) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes_mask(n), p)));
#elif defined(__AVX2__)
  int64_t bytes = 0;
  __builtin_memcpy(&bytes, p, static_cast<size_t>(n));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes)));
#else
  return set1(n > 0 ? static_cast<float>(*p) : 0.f);
#endif
}

constexpr int64_t kCodesAhead = 4096;  // fetched: rows of codes follow each other in a page

template <class T>
void decode(const CodedRows& from, T* to, int64_t to_row) {
  for (int64_t r = 0; r < from.rows; ++r, to += to_row) {
    const int8_t* codes = from.codes + r * from.row;
    const V scale = set1(from.scale[r * from.scale_row]);
    int64_t i = 0;
    for (; i + 4 * kLanes <= from.n; i += 4 * kLanes) {
      __builtin_prefetch(codes + i + kCodesAhead);
      for (int j = 0; j < 4; ++j) store(to + i + j * kLanes, load_codes(codes + i + j * kLanes, kLanes) * scale);
    }
    for (; i < from.n; i += kLanes) {
      const int n = from.n - i < kLanes ? static_cast<int>(from.n - i) : kLanes;
      store_some(to + i, load_codes(codes + i, n) * scale, n);
    }
  }
}

}  // namespace

const ElementwiseKernels elementwise_kernels = {copy_row<float, float>,
                                                copy_row<float, bf16>,
                                                copy_row<bf16, float>,
                                                copy_row<bf16, bf16>,
                                                add_row<float, float>,
                                                add_row<float, bf16>,
                                                add_row<bf16, float>,
                                                add_row<bf16, bf16>,
                                                split,
                                                encode<float>,
                                                encode<bf16>,
                                                decode<float>,
                                                decode<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
