// Operands of block_product.h from rows of fp32 or bf16 in memory. Include from *.isa.cc only.
//
// `row(i)` is a pointer to row i of X; X has `rows` rows and `cols` columns. Results are padded with zeros to the
// extents given.
#pragma once
#include "kernels/gemm/block_product.h"
#include "kernels/gemm/transpose.h"

namespace birkhoff::kernels::BK_ISA {

inline int clamp_count(int64_t n, int most) { return n <= 0 ? 0 : n >= most ? most : static_cast<int>(n); }

#if defined(__AVX512F__)
inline __mmask32 mask32(int n) { return n >= 32 ? 0xffffffffu : (1u << n) - 1u; }

// Two rows of bf16 woven into pairs: dword j = (even[j], odd[j]), for n <= 16 columns. A null row is zeros.
inline __m512i weave(const bf16* even, const bf16* odd, int n) {
  const __mmask16 m = lanes_mask(n);
  __m512i v = _mm512_setzero_si512();
  if (even) v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, even));
  if (odd) v = _mm512_or_si512(v, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, odd)), 16));
  return v;
}
#endif

template <class T>
inline void copy_converted(const T* x, float* out, int64_t n) {
  for_lanes(n, [&](int64_t i, int m) { store_some(out + i, load_some(x + i, m), m); });
}
inline void copy_converted(const bf16* x, bf16* out, int64_t n) {
  __builtin_memcpy(out, x, static_cast<size_t>(n) * 2);
}

template <class Op>
inline void zero(Op* out, int64_t n) {
  __builtin_memset(static_cast<void*>(out), 0, static_cast<size_t>(n) * sizeof(Op));
}

// a = X: out [out_rows][ld].
template <class Op, class Row>
inline void pack_rows(Row&& row, int64_t rows, int64_t cols, Op* out, int64_t ld, int64_t out_rows) {
  for (int64_t i = 0; i < rows; ++i) {
    copy_converted(row(i), out + i * ld, cols);
    zero(out + i * ld + cols, ld - cols);
  }
  zero(out + rows * ld, (out_rows - rows) * ld);
}

// X^T without pairs: out (c, r) at c * ld + r, for a or b of fp32. out_rows and out_cols are multiples of 16.
template <class Row>
inline void transpose_f32(Row&& row, int64_t rows, int64_t cols, float* out, int64_t ld, int64_t out_rows,
                          int64_t out_cols) {
#if defined(__AVX512F__)
  for (int64_t r = 0; r < out_cols; r += 16) {
    for (int64_t c = 0; c < out_rows; c += 16) {
      const int n = clamp_count(cols - c, 16);
      __m512i v[16];
      for (int i = 0; i < 16; ++i)
        v[i] = r + i < rows && n ? (__m512i)load_n(row(r + i) + c, n) : _mm512_setzero_si512();
      transpose16(v);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (c + i) * ld + r, v[i]);
    }
  }
#elif defined(__AVX2__)
  for (int64_t r = 0; r < out_cols; r += 8) {
    const int count = clamp_count(rows - r, 8);
    decltype(row(0)) x[8];
    for (int i = 0; i < count; ++i) x[i] = row(r + i);
    for (int64_t c = 0; c < out_rows; c += 8) {
      const int n = clamp_count(cols - c, 8);
      __m256i v[8];
      if (n == 8 && count == 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = (__m256i)load(x[i] + c);
      } else {
        for (int i = 0; i < 8; ++i) v[i] = i < count && n ? (__m256i)load_n(x[i] + c, n) : _mm256_setzero_si256();
      }
      transpose8(v);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) store(out + (c + i) * ld + r, (V)v[i]);
    }
  }
#else
  for (int64_t c = 0; c < out_rows; ++c) zero(out + c * ld, out_cols);
  for (int64_t r = 0; r < rows; ++r) {
    const auto* x = row(r);
    for (int64_t c = 0; c < cols; ++c) out[c * ld + r] = to_float(x[c]);
  }
#endif
}

// b = X^T: k = columns of X (padded to out_k), n = rows of X (padded to out_n).
template <class Row>
inline void pack_b_transposed(Row&& row, int64_t rows, int64_t cols, float* out, int64_t ldb, int64_t out_k,
                              int64_t out_n) {
  transpose_f32(row, rows, cols, out, ldb, out_k, out_n);
}
// b = X: k = rows of X (padded to out_k), n = columns of X (padded to out_n).
template <class Row>
inline void pack_b(Row&& row, int64_t rows, int64_t cols, float* out, int64_t ldb, int64_t out_k, int64_t out_n) {
  for (int64_t r = 0; r < rows; ++r) {
    copy_converted(row(r), out + r * ldb, cols);
    zero(out + r * ldb + cols, out_n - cols);
  }
  for (int64_t r = rows; r < out_k; ++r) zero(out + r * ldb, out_n);
}
// a = X^T: m = columns of X (padded to out_m), k = rows of X (padded to out_k).
template <class Row>
inline void pack_a_transposed(Row&& row, int64_t rows, int64_t cols, float* out, int64_t lda, int64_t out_m,
                              int64_t out_k) {
  transpose_f32(row, rows, cols, out, lda, out_m, out_k);
}

#if defined(__AVX512BF16__)
// 32 columns of two rows as pairs.
inline void weave(__m512i even, __m512i odd, __m512i (&out)[2]) {
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);  // of every 8 columns
  out[0] = _mm512_permutex2var_epi64(low, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), high);
  out[1] = _mm512_permutex2var_epi64(low, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), high);
}
inline void weave_full(const bf16* even, const bf16* odd, bf16* out) {
  __m512i pairs[2];
  weave(_mm512_loadu_si512(even), _mm512_loadu_si512(odd), pairs);
  _mm512_storeu_si512(out, pairs[0]);
  _mm512_storeu_si512(out + 32, pairs[1]);
}

template <class Row>
inline void pack_b_transposed(Row&& row, int64_t rows, int64_t cols, bf16* out, int64_t ldb, int64_t out_k,
                              int64_t out_n) {
  for (int64_t r = 0; r < out_n; r += 16) {
    for (int64_t c = 0; c < out_k; c += 32) {
      const int n = clamp_count(cols - c, 32);
      __m512i v[16];
      for (int i = 0; i < 16; ++i)
        v[i] = r + i < rows && n ? _mm512_maskz_loadu_epi16(mask32(n), row(r + i) + c) : _mm512_setzero_si512();
      transpose16(v);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (c + 2 * i) * ldb + 2 * r, v[i]);
    }
  }
}
template <class Row>
inline void pack_b(Row&& row, int64_t rows, int64_t cols, bf16* out, int64_t ldb, int64_t out_k, int64_t out_n) {
  for (int64_t r = 0; r < out_k; r += 2) {
    const bf16* even = r < rows ? row(r) : nullptr;
    const bf16* odd = r + 1 < rows ? row(r + 1) : nullptr;
    int64_t c = 0;
    for (; odd && c + 32 <= cols; c += 32) weave_full(even + c, odd + c, out + r * ldb + 2 * c);
    for (; c < out_n; c += 16) {
      const int n = clamp_count(cols - c, 16);
      _mm512_storeu_si512(out + r * ldb + 2 * c,
                          n ? weave(even ? even + c : even, odd ? odd + c : odd, n) : _mm512_setzero_si512());
    }
  }
}
template <class Row>
inline void pack_a_transposed(Row&& row, int64_t rows, int64_t cols, bf16* out, int64_t lda, int64_t out_m,
                              int64_t out_k) {
  for (int64_t r = 0; r < out_k; r += 32) {
    for (int64_t c = 0; c < out_m; c += 16) {
      const int n = clamp_count(cols - c, 16);
      __m512i v[16];
      for (int i = 0; i < 16; ++i) {
        const int64_t e = r + 2 * i;
        v[i] = n ? weave(e < rows ? row(e) + c : nullptr, e + 1 < rows ? row(e + 1) + c : nullptr, n)
                 : _mm512_setzero_si512();
      }
      transpose16(v);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (c + i) * lda + r, v[i]);
    }
  }
}
#endif

// The way back: row(j)[c] = x[c * ld + j] * scale[j] for j < rows, c < cols; x is readable up to multiples of 16 of
// both.
template <class T, class Row>
inline void unpack_transposed(const float* x, int64_t ld, const float* scale, int64_t rows, int64_t cols, Row&& row) {
#if defined(__AVX512F__)
  for (int64_t j = 0; j < rows; j += 16) {
    const V factor = load(scale + j);
    for (int64_t c = 0; c < cols; c += 16) {
      __m512i v[16];
      for (int i = 0; i < 16; ++i) v[i] = (__m512i)(load(x + (c + i) * ld + j) * factor);
      transpose16(v);
      const int n = clamp_count(cols - c, 16), count = clamp_count(rows - j, 16);
      for (int i = 0; i < count; ++i) store_some(static_cast<T*>(row(j + i)) + c, (V)v[i], n);
    }
  }
#elif defined(__AVX2__)
  for (int64_t j = 0; j < rows; j += 8) {
    const V factor = load(scale + j);
    const int count = clamp_count(rows - j, 8);
    T* out[8];
    for (int i = 0; i < count; ++i) out[i] = row(j + i);
    for (int64_t c = 0; c < cols; c += 8) {
      __m256i v[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) v[i] = (__m256i)(load(x + (c + i) * ld + j) * factor);
      transpose8(v);
      const int n = clamp_count(cols - c, 8);
      for (int i = 0; i < count; ++i) store_some(out[i] + c, (V)v[i], n);
    }
  }
#else
  for (int64_t j = 0; j < rows; ++j) {
    T* out = row(j);
    for (int64_t c = 0; c < cols; ++c) {
      const float f = x[c * ld + j] * scale[j];
      if constexpr (sizeof(T) == 2)
        out[c] = to_bf16(f);
      else
        out[c] = f;
    }
  }
#endif
}

}  // namespace birkhoff::kernels::BK_ISA
