// Products of blocks that fit the caches, for kernels that pack their own operands (attention). Include from *.isa.cc
// only.
//
// The element type of the operands follows the storage type and the instruction set: bf16 where the processor
// multiplies bf16 (avx512, amx), fp32 everywhere else.
//   a  [m][lda]            row-major
//   b  [k][ldb]            fp32: row-major; bf16: rows in pairs, element (k, n) at (k/2)*2*ldb + 2*n + k%2
//   c  [m][ldc]            fp32 row-major
// m and n are multiples of 16, k of kDepth<Op>; callers pad with zeros. Every element of c is one sum over k in
// ascending order that does not depend on m, n or its place, and a zero in a or b leaves it as it is.
#pragma once
#include "kernels/gemm/tile_config.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

#if defined(__AVX512BF16__)
template <class T>
using Operand = T;
#else
template <class T>
using Operand = float;
#endif

template <class Op>
inline constexpr int64_t kPair = 1;  // consecutive k of one column that lie side by side in b
template <>
inline constexpr int64_t kPair<bf16> = 2;
template <class Op>
inline constexpr int64_t kDepth = 16;
template <>
inline constexpr int64_t kDepth<bf16> = 32;

inline constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Tile registers are configured once per task. The configuration belongs to the thread, so it is released as well.
class TileScope {
 public:
#if defined(BK_ISA_amx)
  TileScope() { load_tile_config({}); }
  ~TileScope() { _tile_release(); }
#else
  TileScope() {}
  ~TileScope() {}
#endif
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

inline V multiply_add(V a, V b, V c) {
#if defined(__AVX2__)
  return fma(a, b, c);
#else
  return a * b + c;  // without the instruction, fma is a slow library call
#endif
}

// R rows by N vectors of fp32.
template <int R, int N>
inline void product_block(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t k,
                          bool add) {
  V s[R][N];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) s[i][j] = add ? load(c + i * ldc + j * kLanes) : set1(0.f);
  for (int64_t p = 0; p < k; ++p) {
    V w[N];
    for (int j = 0; j < N; ++j) w[j] = load(b + p * ldb + j * kLanes);
    for (int i = 0; i < R; ++i) {
      const V x = set1(a[i * lda + p]);
      for (int j = 0; j < N; ++j) s[i][j] = multiply_add(x, w[j], s[i][j]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) store(c + i * ldc + j * kLanes, s[i][j]);
}

#if defined(BK_ISA_amx)
// MT x NT tiles of 16x16.
template <int MT, int NT>
inline void tile_block(const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float* c, int64_t ldc, int64_t k,
                       bool add) {
  const int64_t sa = lda * 2, sb = ldb * 4, sc = ldc * 4;
  __asm__ volatile("" ::: "memory");  // the compiler does not know that tile loads read memory
  if (add) {
    _tile_loadd(0, c, sc);
    if constexpr (NT == 2) _tile_loadd(1, c + 16, sc);
    if constexpr (MT == 2) _tile_loadd(2, c + 16 * ldc, sc);
    if constexpr (MT == 2 && NT == 2) _tile_loadd(3, c + 16 * ldc + 16, sc);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t p = 0; p < k; p += 32) {
    _tile_loadd(4, a + p, sa);
    _tile_loadd(6, b + p * ldb, sb);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (NT == 2) {
      _tile_loadd(7, b + p * ldb + 32, sb);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (MT == 2) {
      _tile_loadd(5, a + 16 * lda + p, sa);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (NT == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, sc);
  if constexpr (NT == 2) _tile_stored(1, c + 16, sc);
  if constexpr (MT == 2) _tile_stored(2, c + 16 * ldc, sc);
  if constexpr (MT == 2 && NT == 2) _tile_stored(3, c + 16 * ldc + 16, sc);
}
template <int R, int N>
inline void product_block(const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float* c, int64_t ldc, int64_t k,
                          bool add) {
  tile_block<R, N>(a, lda, b, ldb, c, ldc, k, add);
}
#elif defined(__AVX512BF16__)
template <int R, int N>
inline void product_block(const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float* c, int64_t ldc, int64_t k,
                          bool add) {
  V s[R][N];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) s[i][j] = add ? load(c + i * ldc + j * 16) : set1(0.f);
  for (int64_t p = 0; p < k; p += 2) {
    __m512bh w[N];
    for (int j = 0; j < N; ++j) w[j] = (__m512bh)_mm512_loadu_si512(b + p * ldb + j * 32);
    for (int i = 0; i < R; ++i) {
      int pair;
      __builtin_memcpy(&pair, a + i * lda + p, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      for (int j = 0; j < N; ++j) s[i][j] = _mm512_dpbf16_ps(s[i][j], x, w[j]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) store(c + i * ldc + j * 16, s[i][j]);
}
#endif

// How many rows and columns (as template arguments of product_block, and as elements) one block has; kTall where rows
// allow it.
template <class Op>
struct BlockOf {
#if defined(__AVX512F__)
  static constexpr int kTall = 4, kRows = 4, kWide = 4, kNarrow = 1;
#elif defined(__AVX2__)
  static constexpr int kTall = 6, kRows = 4, kWide = 2,
                       kNarrow = 2;  // twelve sums where there are rows enough: eight just hide the latency
#else
  static constexpr int kTall = 4, kRows = 4, kWide = 4, kNarrow = 4;
#endif
  static constexpr int64_t kColumns = kLanes;  // of one unit of kWide
};

// N units of columns of c.
template <class Op, int N>
inline void product_columns(const Op* a, int64_t lda, const Op* b, int64_t ldb, float* c, int64_t ldc, int64_t m,
                            int64_t k, bool add) {
  using B = BlockOf<Op>;
  const int64_t tall = m / (2 * B::kTall) * (2 * B::kTall);  // leaves a multiple of 4 rows
  int64_t i = 0;
  for (; i < tall; i += B::kTall) product_block<B::kTall, N>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
  for (; i < m; i += B::kRows) product_block<B::kRows, N>(a + i * lda, lda, b, ldb, c + i * ldc, ldc, k, add);
}

// c [m, n] = a b, or += with add.
template <class Op>
inline void product(const Op* a, int64_t lda, const Op* b, int64_t ldb, float* c, int64_t ldc, int64_t m, int64_t n,
                    int64_t k, bool add) {
  using B = BlockOf<Op>;
  int64_t j = 0;
  for (; j + B::kWide * B::kColumns <= n; j += B::kWide * B::kColumns)
    product_columns<Op, B::kWide>(a, lda, b + j * kPair<Op>, ldb, c + j, ldc, m, k, add);
  for (; j < n; j += B::kNarrow * B::kColumns)
    product_columns<Op, B::kNarrow>(a, lda, b + j * kPair<Op>, ldb, c + j, ldc, m, k, add);
}

#if defined(BK_ISA_amx)
template <>
inline void product<bf16>(const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float* c, int64_t ldc, int64_t m,
                          int64_t n, int64_t k, bool add) {
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) {
    int64_t i = 0;
    for (; i + 32 <= m; i += 32) product_block<2, 2>(a + i * lda, lda, b + j * 2, ldb, c + i * ldc + j, ldc, k, add);
    if (i < m) product_block<1, 2>(a + i * lda, lda, b + j * 2, ldb, c + i * ldc + j, ldc, k, add);
  }
  if (j < n) {
    int64_t i = 0;
    for (; i + 32 <= m; i += 32) product_block<2, 1>(a + i * lda, lda, b + j * 2, ldb, c + i * ldc + j, ldc, k, add);
    if (i < m) product_block<1, 1>(a + i * lda, lda, b + j * 2, ldb, c + i * ldc + j, ldc, k, add);
  }
}
#endif

}  // namespace birkhoff::kernels::BK_ISA
