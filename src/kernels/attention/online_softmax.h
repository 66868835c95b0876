// The online softmax of attention's forward, and what a query leaves of it. Include from *.isa.cc only.
#pragma once
#include "kernels/attention/softmax_block.h"

namespace birkhoff::kernels::BK_ISA {

inline constexpr int64_t kKeys = 128;  // keys per step; their place is counted from the first key of the stretch
// The reference of a query's powers of two follows its largest score only when that is 2^kSlack above: terms then stay
// below 2^kSlack, which costs no precision, and the sums of earlier steps hardly ever need to shrink.
inline constexpr float kSlack = 8.f;

template <class T, int64_t kWidth>
inline void store_probabilities(V even, V odd, float* p) {
  store(p, rounded<T>(even));
  store(p + kWidth, rounded<T>(odd));
}
#if defined(__AVX512BF16__)
template <class T, int64_t kWidth>
inline void store_probabilities(V even, V odd, bf16* p) {
  _mm512_storeu_si512(p, woven(narrow2(even, odd)));
}
#endif

// One step of the online softmax for kLanes columns from scores s [rows][kWidth]: probabilities to p, new reference
// and sum, and the factor by which what was summed before shrinks. c = scale * log2(e).
template <class T, int64_t kWidth, class Op>
inline V softmax_step(const float* s, int64_t seen, int64_t rows, V c, Op* p, float* top, float* total) {
  const V old = load(top);
  V m0 = set1(kMasked), m1 = m0;
  for (int64_t k = 0; k < seen; k += 2) {
    m0 = max(m0, load(s + k * kWidth));
    m1 = max(m1, load(s + (k + 1) * kWidth));
  }
  const V largest = max(m0, m1), now = where_greater(largest * c, old * c + set1(kSlack), largest, old);
  const V shift = set1(0.f) - now * c;
  V sum0 = set1(0.f), sum1 = sum0;
  for (int64_t k = 0; k < seen; k += 2) {
    const V even = exp2<T>(multiply_add(load(s + k * kWidth), c, shift));
    const V odd = exp2<T>(multiply_add(load(s + (k + 1) * kWidth), c, shift));
    sum0 = sum0 + even;
    sum1 = sum1 + odd;
    store_probabilities<T, kWidth>(even, odd, p + k * kWidth);
  }
  for (int64_t k = seen; k < rows; k += 2) store_probabilities<T, kWidth>(set1(0.f), set1(0.f), p + k * kWidth);
  const V shrink = exp2<T>(old * c + shift);
  store(top, now);
  store(total, load(total) * shrink + (sum0 + sum1));
  return shrink;
}

// Log of the softmax denominator of the columns from `first` on.
inline void store_lse(const AttentionForward& a, int64_t first, int64_t columns, const float* top, const float* total) {
  if (!a.lse) return;
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t col = first + j;
    a.lse[col / a.heads * a.lse_stride + col % a.heads] = top[j] * (a.scale * kLog2e) * kLn2 + __builtin_logf(total[j]);
  }
}

}  // namespace birkhoff::kernels::BK_ISA
