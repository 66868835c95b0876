// Copies of matrices into the layouts of the product kernels. Bandwidth bound: whole cache lines in and out.
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 finds its own intrinsics' undefined operands uninitialised
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/transpose.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t round_up(int64_t a, int64_t to) { return (a + to - 1) / to * to; }

#if defined(__AVX512F__)

// 32 elements as bf16, those from n on as zeros.
__m512i load32(const float* p, int64_t n) {
  const V lo = n >= 16 ? load(p) : load_n(p, static_cast<int>(n < 0 ? 0 : n));
  const V hi = n >= 32 ? load(p + 16) : n > 16 ? load_n(p + 16, static_cast<int>(n - 16)) : set1(0.f);
  return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}
__m512i load32(const bf16* p, int64_t n) {
  return n >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(static_cast<__mmask32>((1ull << n) - 1), p);
}

template <class S>
void transposed_to_pairs(const S* w, int64_t stride, int64_t n, int64_t k, bf16* panel) {
  for (int64_t j = 0; j < k; j += kKBlock, panel += kKBlock * kPanel) {
    __m512i r[16];
    if (n == kPanel && k - j >= kKBlock) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = load32(w + i * stride + j, 32);
    } else {
      for (int i = 0; i < 16; ++i) r[i] = i < n ? load32(w + i * stride + j, k - j) : _mm512_setzero_si512();
    }
    transpose16(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(panel + 32 * i, r[i]);
  }
}

template <class S>
void transposed_to_f32(const S* w, int64_t stride, int64_t n, int64_t k, float* panel) {
  for (int64_t j = 0; j < k; j += 16) {
    const int some = static_cast<int>(smaller(16, k - j));
    __m512i r[16];
    for (int i = 0; i < 16; ++i)
      r[i] = i < n ? _mm512_castps_si512(load_some(w + i * stride + j, some)) : _mm512_setzero_si512();
    transpose16(r);
    if (some == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(panel + (j + i) * kPanel, r[i]);
    } else {
      for (int i = 0; i < some; ++i) _mm512_storeu_si512(panel + (j + i) * kPanel, r[i]);
    }
  }
}

// Lanes of a below, of b above.
__m512i join(__m256i a, __m256i b) { return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1); }
__m512i two_rows(const float* a, const float* b, int n) {
  return (__m512i)_mm512_cvtne2ps_pbh(load_some(b, n), load_some(a, n));
}
__m512i two_rows(const bf16* a, const bf16* b, int n) {
  return join(_mm256_maskz_loadu_epi16(lanes_mask(n), a), _mm256_maskz_loadu_epi16(lanes_mask(n), b));
}
__m512i one_row(const float* a, int n) { return (__m512i)_mm512_cvtne2ps_pbh(set1(0.f), load_some(a, n)); }
__m512i one_row(const bf16* a, int n) {
  return join(_mm256_maskz_loadu_epi16(lanes_mask(n), a), _mm256_setzero_si256());
}

// Elements 0, 16, 1, 17, ...: rows of a pair side by side.
__m512i interleave(__m512i x) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), x);
}

template <class S>
void pairs_of_panel(const S* w, int64_t stride, int64_t rows, int n, bf16* panel) {
  int64_t j = 0;
  for (; j + 2 <= rows; j += 2)
    _mm512_storeu_si512(panel + j * kPanel, interleave(two_rows(w + j * stride, w + (j + 1) * stride, n)));
  if (j < rows) {
    _mm512_storeu_si512(panel + j * kPanel, interleave(one_row(w + j * stride, n)));
    j += 2;
  }
  for (; j < kKBlock; j += 2) _mm512_storeu_si512(panel + j * kPanel, _mm512_setzero_si512());
}

// Four rows' 8 elements, one row per 128-bit lane.
__m512i four_eights(const bf16* p, int64_t step) {
  const auto at = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * step)); };
  __m512i x = _mm512_castsi128_si512(at(0));
  x = _mm512_inserti32x4(x, at(1), 1);
  x = _mm512_inserti32x4(x, at(2), 2);
  return _mm512_inserti32x4(x, at(3), 3);
}

// 32 rows x 8 columns -> 8 rows x 32 columns: lane l transposes rows 8 l .. 8 l + 7.
void transpose_32x8(const bf16* w, int64_t stride, bf16* out, int64_t out_stride) {
  __m512i r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = four_eights(w + i * stride, 8 * stride);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // pairs of rows
    t[2 * i] = _mm512_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // fours of rows: r[4 i + j] holds columns 2 j, 2 j + 1
    r[4 * i + 0] = _mm512_unpacklo_epi32(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi32(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi32(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi32(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm512_storeu_si512(out + (2 * j) * out_stride, _mm512_unpacklo_epi64(r[j], r[4 + j]));
    _mm512_storeu_si512(out + (2 * j + 1) * out_stride, _mm512_unpackhi_epi64(r[j], r[4 + j]));
  }
}
#define BK_FAST_TRANSPOSE 1

#elif defined(__AVX2__)

// 16 elements as bf16, those from n on as zeros.
__m256i join(__m128i low, __m128i high) { return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1); }
__m256i load16(const float* p, int64_t n) {
  if (n >= 16) return join(narrow(load(p)), narrow(load(p + 8)));
  const V low = load_n(p, static_cast<int>(smaller(n, 8))),
          high = n > 8 ? load_n(p + 8, static_cast<int>(n - 8)) : set1(0.f);
  return join(narrow(low), narrow(high));
}
__m256i load16(const bf16* p, int64_t n) {
  if (n >= 16) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  alignas(32) uint16_t t[16] = {};
  __builtin_memcpy(t, p, static_cast<size_t>(n > 0 ? n : 0) * 2);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(t));
}

// The eight rows that are packed next when a matrix passes once, into the second-level cache: so many short runs are
// more than the processor foresees.
template <class S>
void prefetch_rows(const S* w, int64_t stride) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) __builtin_prefetch(w + i * stride, 0, 2);
}

template <class S>
void transposed_to_pairs(const S* w, int64_t stride, int64_t n, int64_t k, bf16* panel) {
  const int64_t padded = round_up(k, kKBlock);
  // Eight rows at a time: lines of rows a power of two apart share a set of the first-level cache, which has eight.
  for (int64_t c = 0; c < kPanel; c += 8) {
    for (int64_t j = 0; j < padded; j += 16) {
      __m256i r[8];
      if (c + 8 <= n && k - j >= 16) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) r[i] = load16(w + (c + i) * stride + j, 16);
        if (j % (64 / static_cast<int64_t>(sizeof(S))) == 0) prefetch_rows(w + (c + 8) * stride + j, stride);
      } else {
        for (int i = 0; i < 8; ++i)
          r[i] = c + i < n && j < k ? load16(w + (c + i) * stride + j, k - j) : _mm256_setzero_si256();
      }
      transpose8(r);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + (j + 2 * i) * kPanel + 2 * c), r[i]);
    }
  }
}

template <class S>
void transposed_to_f32(const S* w, int64_t stride, int64_t n, int64_t k, float* panel) {
  for (int64_t j = 0; j < k; j += 8) {
    const int some = static_cast<int>(smaller(8, k - j));
    for (int64_t c = 0; c < kPanel; c += 8) {
      __m256i r[8];
      for (int i = 0; i < 8; ++i)
        r[i] = c + i < n ? _mm256_castps_si256(load_some(w + (c + i) * stride + j, some)) : _mm256_setzero_si256();
      transpose8(r);
      for (int i = 0; i < some; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + (j + i) * kPanel + c), r[i]);
    }
  }
}

// Rows a and b side by side.
void store_pair(__m256i a, __m256i b, bf16* to) {
  const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), _mm256_permute2x128_si256(low, high, 0x31));
}

template <class S>
void pairs_of_panel(const S* w, int64_t stride, int64_t rows, int n, bf16* panel) {
  for (int64_t j = 0; j < kKBlock; j += 2) {
    const __m256i a = j < rows ? load16(w + j * stride, n) : _mm256_setzero_si256();
    const __m256i b = j + 1 < rows ? load16(w + (j + 1) * stride, n) : _mm256_setzero_si256();
    store_pair(a, b, panel + j * kPanel);
  }
}

#else

bf16 rounded(float x) { return to_bf16(x); }
bf16 rounded(bf16 x) { return x; }

template <class S>
void transposed_to_pairs(const S* w, int64_t stride, int64_t n, int64_t k, bf16* panel) {
  const int64_t padded = round_up(k, kKBlock);
  for (int64_t c = 0; c < kPanel; ++c) {
    for (int64_t j = 0; j < padded; ++j)
      panel[j / 2 * 2 * kPanel + 2 * c + j % 2] = c < n && j < k ? rounded(w[c * stride + j]) : bf16{};
  }
}

template <class S>
void transposed_to_f32(const S* w, int64_t stride, int64_t n, int64_t k, float* panel) {
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t c = 0; c < kPanel; ++c) panel[j * kPanel + c] = c < n ? to_float(w[c * stride + j]) : 0.f;
  }
}

template <class S>
void pairs_of_panel(const S* w, int64_t stride, int64_t rows, int n, bf16* panel) {
  for (int64_t j = 0; j < kKBlock; ++j) {
    for (int c = 0; c < kPanel; ++c)
      panel[j / 2 * 2 * kPanel + 2 * c + j % 2] = j < rows && c < n ? rounded(w[j * stride + c]) : bf16{};
  }
}
#endif

template <class S>
void rows_to_pairs(const S* w, int64_t stride, int64_t k, int64_t n, bf16* panels, int64_t panel_stride) {
  for (int64_t j = 0; j < k; j += kKBlock) {
    for (int64_t c = 0; c < n; c += kPanel)
      pairs_of_panel(w + j * stride + c, stride, smaller(kKBlock, k - j), static_cast<int>(smaller(kPanel, n - c)),
                     panels + c / kPanel * panel_stride + j * kPanel);
  }
}

template <class S>
void rows_to_f32(const S* w, int64_t stride, int64_t k, int64_t n, float* panels, int64_t panel_stride) {
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t c = 0; c < n; c += kPanel) {
      float* to = panels + c / kPanel * panel_stride + j * kPanel;
      for (int64_t i = 0; i < kPanel; i += kLanes) {
        const int64_t left = n - c - i;
        store(to + i, left >= kLanes ? load(w + j * stride + c + i)
                                     : load_n(w + j * stride + c + i, static_cast<int>(left > 0 ? left : 0)));
      }
    }
  }
}

void transpose_bf16(const bf16* w, int64_t stride, int64_t k, int64_t n, bf16* out, int64_t out_stride) {
  int64_t j = 0;
#if defined(BK_FAST_TRANSPOSE)
  for (; j + 32 <= k; j += 32) {
    int64_t c = 0;
    for (; c + 8 <= n; c += 8) transpose_32x8(w + j * stride + c, stride, out + c * out_stride + j, out_stride);
    for (; c < n; ++c) {
      for (int64_t i = j; i < j + 32; ++i) out[c * out_stride + i] = w[i * stride + c];
    }
  }
#endif
  const int64_t padded = round_up(k, kKBlock);
  for (int64_t c = 0; c < n; ++c) {
    for (int64_t i = j; i < padded; ++i) out[c * out_stride + i] = i < k ? w[i * stride + c] : bf16{};
  }
}

void widen_rows(const bf16* w, int64_t stride, int64_t rows, int64_t cols, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for_lanes(cols,
              [&](int64_t i, int n) { store_some(out + r * out_stride + i, load_some(w + r * stride + i, n), n); });
}

void add_parts(float* dst, const float* src, int64_t parts, int64_t part_stride, int64_t count, bool add) {
  for_lanes(count, [&](int64_t i, int n) {
    V sum = load_some(src + i, n);
    for (int64_t s = 1; s < parts; ++s) sum = sum + load_some(src + s * part_stride + i, n);
    store_some(dst + i, add ? load_some(dst + i, n) + sum : sum, n);
  });
}

}  // namespace

const PackKernels pack_kernels = {transposed_to_f32<float>,
                                  transposed_to_f32<bf16>,
                                  transposed_to_pairs<float>,
                                  transposed_to_pairs<bf16>,
                                  rows_to_f32<float>,
                                  rows_to_f32<bf16>,
                                  rows_to_pairs<float>,
                                  rows_to_pairs<bf16>,
                                  transpose_bf16,
                                  widen_rows,
                                  add_parts};

}  // namespace birkhoff::kernels::BK_ISA
