// One row of A against rows of bf16 weights as they lie in memory: decoding one token, which is bound by reading them.
// Included by gemm.isa.cc only.
#pragma once
#include "kernels/gemm/gemm_vector.h"
#include "kernels/gemm/transpose.h"

namespace birkhoff::kernels::BK_ISA {

#if defined(__AVX2__) && !defined(__AVX512F__)

inline constexpr int64_t kStep = 16;  // columns of the weights that one transpose turns
inline constexpr int64_t kLine = 32;  // bf16 in a cache line

// sum lane r += a[k] w[r][k] for eight rows, k < kStep in ascending order.
inline void add_step(const float* a, const bf16* const (&rows)[8], int64_t at, V& sum) {
  __m256i r[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i] + at));
  transpose8(r);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const V even = _mm256_castsi256_ps(_mm256_slli_epi32(r[i], 16));
    const V odd = _mm256_castsi256_ps(_mm256_and_si256(r[i], _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    sum = fma(set1(a[at + 2 * i]), even, sum);
    sum = fma(set1(a[at + 2 * i + 1]), odd, sum);
  }
}

// Eight columns of C, `count` of them real. Eight rows and no more: one sum waits for its last product longer than for
// arithmetic, but more streams at once are read slower than that (16 rows take 1.2, 32 rows 1.6 times as long). The
// eight rows that come next are fetched meanwhile into the second-level cache, in the order in which they lie.
inline void row_by_eight(const GemmBlock& g, int64_t col, int64_t count) {
  const float* a = static_cast<const float*>(g.a);
  const bf16* rows[8];
  for (int i = 0; i < 8; ++i) rows[i] = static_cast<const bf16*>(g.b) + (col + (i < count ? i : 0)) * g.b_panel;
  const bf16* next = rows[0] + 8 * g.b_panel;
  V sum = set1(0.f);
  int64_t k = 0;
  for (; k + kStep <= g.k; k += kStep, next += 8 * kStep) {
#pragma GCC unroll 4
    for (int i = 0; i < 8 * kStep / kLine; ++i) __builtin_prefetch(next + i * kLine, 0, 2);
    add_step(a, rows, k, sum);
  }
  for (; k < g.k; ++k) {
    alignas(32) float w[8];
    for (int i = 0; i < 8; ++i) w[i] = to_float(rows[i][k]);
    sum = fma(set1(a[k]), load(w), sum);
  }
  const int n = static_cast<int>(count);
  if (g.store == GemmStore::assign_bf16) return store_some(static_cast<bf16*>(g.c) + col, sum, n);
  float* c = static_cast<float*>(g.c) + col;
  store_some(c, g.store == GemmStore::add_f32 ? load_some(c, n) + sum : sum, n);
}

inline void row_by_bf16_rows(const GemmBlock& g) {
  for (int64_t col = 0; col < g.n; col += 8) row_by_eight(g, col, g.n - col < 8 ? g.n - col : 8);
}
#endif

}  // namespace birkhoff::kernels::BK_ISA
