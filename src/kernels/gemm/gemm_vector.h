// Product kernels in vector registers: R rows of A against NV vectors of B, all of k, sums in R * NV registers.
// Included by gemm.isa.cc only.
#pragma once
#include "kernels/gemm/gemm.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

#if defined(__AVX512F__)
inline constexpr int kRows = 12, kVectors = 2;  // 24 sums, 2 of B; A is a broadcast memory operand
#elif defined(__AVX2__)
inline constexpr int kRows = 6, kVectors = 2;  // 12 sums, 2 of B, 1 of A
#else
inline constexpr int kRows = 2, kVectors = 16;  // the compiler makes four-lane vectors of the 16 columns
#endif
inline constexpr int kPerPanel = kPanel / kLanes < kVectors ? kPanel / kLanes : kVectors;

// Without FMA instructions a fused multiply-add is a slow library call.
inline V mul_add(V a, V b, V c) {
#if defined(__AVX2__)
  return fma(a, b, c);
#else
  return c + a * b;
#endif
}

// Where vector v of a row of B starts, relative to the first panel's row.
inline int64_t vector_offset(int v, int64_t b_panel) { return v * kLanes / kPanel * b_panel + v * kLanes % kPanel; }

// The same for panels of row pairs.
inline int64_t pair_offset(int v, int64_t b_panel) { return v * kLanes / kPanel * b_panel + 2 * (v * kLanes % kPanel); }

template <int R, int NV>
struct Sums {
  V v[R][NV];

  void start(const GemmBlock& g, int64_t row, int64_t col) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) v[r][j] = g.first ? set1(0.f) : load(partial_at(g, row + r, col + j * kLanes));
    }
  }

  void zero() {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) v[r][j] = set1(0.f);
    }
  }

  void add(const Sums& other) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) v[r][j] = v[r][j] + other.v[r][j];
    }
  }

  void finish(const GemmBlock& g, int64_t row, int64_t col) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) store_one(g, v[r][j], row + r, col + j * kLanes);
    }
  }

 private:
  static void store_one(const GemmBlock& g, V sum, int64_t row, int64_t col) {
    if (!g.last) return store(partial_at(g, row, col), sum);
    const int64_t left = g.n - col;
    if (left <= 0) return;
    const int n = left < kLanes ? static_cast<int>(left) : kLanes;
    if (g.store == GemmStore::assign_bf16) return store_some(static_cast<bf16*>(g.c) + row * g.c_row + col, sum, n);
    float* c = static_cast<float*>(g.c) + row * g.c_row + col;
    store_some(c, g.store == GemmStore::add_f32 ? load_some(c, n) + sum : sum, n);
  }
};

// Without fused multiply-adds every product is rounded as well, which fp32 sums of scalar code make up for by runs: the
// rounding of a sum of K grows with the square root of kSumRun + K / kSumRun instead of K. A run divides the depth at
// which large products are cut, so that the cuts change no bit.
inline constexpr int64_t kSumRun = 32;

// A and B of fp32.
template <bool kStrips>
struct RowsOfB {
  static constexpr bool kAnyRows = !kStrips;  // strips have kRows rows
  template <int R, int NV>
  static void run(const GemmBlock& g, int64_t row, int64_t col, const void* panel) {
    Sums<R, NV> total;
    total.start(g, row, col);
    const float* a = static_cast<const float*>(g.a) + (kStrips ? row / kRows * g.a_row : row * g.a_row);
    const float* b = static_cast<const float*>(panel);
    if constexpr (kLanes > 1) {
      add_run<R, NV>(total, a, b, g, g.k);
    } else {
      for (int64_t k = 0; k < g.k; k += kSumRun) {
        Sums<R, NV> s;
        s.zero();
        add_run<R, NV>(s, a, b, g, g.k - k < kSumRun ? g.k - k : kSumRun);
        total.add(s);
      }
    }
    total.finish(g, row, col);
  }

 private:
  template <int R, int NV>
  static inline __attribute__((always_inline)) void add_run(Sums<R, NV>& s, const float*& a, const float*& b,
                                                            const GemmBlock& g, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
      V bv[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) bv[j] = load(b + vector_offset(j, g.b_panel));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const V av = set1(kStrips ? a[r] : a[r * g.a_row]);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) s.v[r][j] = mul_add(av, bv[j], s.v[r][j]);
      }
      a += kStrips ? kRows : 1;
      b += kPanel;
    }
  }
};

#if !defined(__AVX512F__)
// B in pairs of rows: the even row, then the odd one.
struct PairsWidened {
  static constexpr bool kAnyRows = true;
  static V even(const bf16* p) {
#if defined(__AVX2__)
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16));
#else
    return to_float(p[0]);
#endif
  }
  static V odd(const bf16* p) {
#if defined(__AVX2__)
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
#else
    return to_float(p[1]);
#endif
  }
  template <int R, int NV>
  static inline __attribute__((always_inline)) void step(Sums<R, NV>& s, const float* a, int64_t a_row,
                                                         const V (&b)[NV]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V av = set1(a[r * a_row]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) s.v[r][j] = mul_add(av, b[j], s.v[r][j]);
    }
  }
  template <int R, int NV>
  static void run(const GemmBlock& g, int64_t row, int64_t col, const void* panel) {
    Sums<R, NV> s;
    s.start(g, row, col);
    const int64_t a_row = g.a_row, b_panel = g.b_panel, k_end = g.k;
    const float* a = static_cast<const float*>(g.a) + row * a_row;
    const bf16* b = static_cast<const bf16*>(panel);
    for (int64_t k = 0; k < k_end; k += 2, b += 2 * kPanel) {
      V bv[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) bv[j] = even(b + pair_offset(j, b_panel));
      step<R, NV>(s, a + k, a_row, bv);
      if (k + 1 == k_end) break;
      // Widening the odd row only now leaves a register for every sum: one sum kept in memory halves the speed.
      __asm__ volatile("" ::: "memory");
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) bv[j] = odd(b + pair_offset(j, b_panel));
      step<R, NV>(s, a + k + 1, a_row, bv);
    }
    s.finish(g, row, col);
  }
};
#else
// The processor's product of bf16 pairs.
struct PairsNative {
  static __m512bh pairs(int32_t x) { return (__m512bh)_mm512_set1_epi32(x); }
  template <int R, int NV>
  static void run(const GemmBlock& g, int64_t row, int64_t col, const void* panel) {
    Sums<R, NV> s;
    s.start(g, row, col);
    const bf16* a = static_cast<const bf16*>(g.a) + row * g.a_row;
    const bf16* b = static_cast<const bf16*>(panel);
    const int64_t even = g.k & ~int64_t{1};
    for (int64_t k = 0; k < even; k += 2, b += 2 * kPanel) step<R, NV, true>(s, a + k, b, g);
    if (even < g.k) step<R, NV, false>(s, a + even, b, g);
    s.finish(g, row, col);
  }

 private:
  template <int R, int NV, bool kWhole>
  static inline __attribute__((always_inline)) void step(Sums<R, NV>& s, const bf16* a, const bf16* b,
                                                         const GemmBlock& g) {
    __m512bh bv[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) bv[j] = (__m512bh)_mm512_loadu_si512(b + j * g.b_panel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int32_t x = 0;
      __builtin_memcpy(&x, a + r * g.a_row, kWhole ? 4 : 2);
      const __m512bh av = pairs(x);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) s.v[r][j] = _mm512_dpbf16_ps(s.v[r][j], bv[j], av);
    }
  }
};
#endif

template <class Kernel, int NV, int R>
inline void run_tail(const GemmBlock& g, int64_t row, int64_t col, const void* panel) {
  if constexpr (R > 0) {
    if (g.m - row == R)
      Kernel::template run<R, NV>(g, row, col, panel);
    else
      run_tail<Kernel, NV, R - 1>(g, row, col, panel);
  }
}

template <class Kernel, int NV, int R = kRows>
inline void run_rows(const GemmBlock& g, int64_t col, const void* panel) {
  int64_t row = 0;
  for (; row + R <= g.m; row += R) Kernel::template run<R, NV>(g, row, col, panel);
  run_tail<Kernel, NV, R - 1>(g, row, col, panel);
}

#if defined(__AVX2__)
// All R rows against NV vectors of B at a time, as far as whole groups of columns go; returns the first column left.
template <class T, class Kernel, int R, int NV>
inline int64_t run_wide(const GemmBlock& g) {
  int64_t col = 0;
  for (; col + NV * kLanes <= g.n; col += NV * kLanes)
    Kernel::template run<R, NV>(g, 0, col, static_cast<const T*>(g.b) + col / kPanel * g.b_panel);
  return col;
}
#endif

// Columns in groups of kVectors vectors, then single panels.
template <class T, class Kernel>
inline void run_block(const GemmBlock& g) {
  constexpr int kCols = kVectors * kLanes;
  const T* b = static_cast<const T*>(g.b);
  int64_t col = 0;
#if defined(__AVX2__)
  // Few rows have few sums, each waiting for its last product: more columns at once. An element's sum is the same.
  if (g.m == 1)
    col = run_wide<T, Kernel, 1, 64 / kLanes>(g);
  else if (g.m <= 3 && 32 / kLanes > kVectors)
    col = g.m == 2 ? run_wide<T, Kernel, 2, 32 / kLanes>(g) : run_wide<T, Kernel, 3, 32 / kLanes>(g);
#endif
  int64_t end = g.n;
#if defined(__AVX2__) && !defined(__AVX512F__)
  // A last one and a half panels at once: the half alone has too few sums.
  const int64_t last = g.n / kPanel * kPanel - kPanel;
  const bool odd = Kernel::kAnyRows && last >= col && g.n - last > kPanel && g.n - last <= kPanel + kLanes;
  if (odd) end = last;
#endif
  for (; col + kCols <= end; col += kCols) run_rows<Kernel, kVectors>(g, col, b + col / kPanel * g.b_panel);
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (Kernel::kAnyRows) {
    if (odd) return run_rows<Kernel, 3, 4>(g, col, b + col / kPanel * g.b_panel);
  }
#endif
  for (; col < g.n; col += kPanel) {
    const T* panel = b + col / kPanel * g.b_panel;
    g.n - col > kLanes ? run_rows<Kernel, kPerPanel>(g, col, panel) : run_rows<Kernel, 1>(g, col, panel);
  }
}

}  // namespace birkhoff::kernels::BK_ISA
