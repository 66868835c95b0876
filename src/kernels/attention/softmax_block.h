// What attention's forward and backward share: powers of two, rounding of probabilities, causal masks. *.isa.cc only.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/gemm/block_product.h"

namespace birkhoff::kernels::BK_ISA {

template <class T>
inline const T* row_of(const AttentionRows& x, int64_t r) {
  if (!x.pages) return static_cast<const T*>(x.data) + r * x.stride;
  r += x.first;
  const char* page = static_cast<const char*>(x.data) + x.pages[r / kPageRows] * x.page_bytes;
  return reinterpret_cast<const T*>(page) + r % kPageRows * x.stride;
}

inline constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;
// A masked score. Finite, so that no difference of two of them is NaN, and so low that 2^(it times any scale) is
// exactly 0.
inline constexpr float kMasked = -1e30f;

// 2^x: relative error 5e-7 where the result is rounded to bf16 anyway, 1.5 ulp for fp32; exactly 1 at 0, exactly 0
// from -127 on.
template <class T>
inline V exp2(V x) {
  const V n = round(x), r = x - n;
  V p;
  if constexpr (sizeof(T) == 2) {
    p = multiply_add(set1(0.00111254898365587f), r, set1(0.009666234254837036f));
    p = multiply_add(p, r, set1(0.05557393282651901f));
    p = multiply_add(p, r, set1(0.24022351205348969f));
    p = multiply_add(p, r, set1(0.693142831325531f));
  } else {
    p = multiply_add(set1(0.0001559447409817949f), r, set1(0.0013406567741185427f));
    p = multiply_add(p, r, set1(0.009617693722248077f));
    p = multiply_add(p, r, set1(0.055503107607364655f));
    p = multiply_add(p, r, set1(0.24022652208805084f));
    p = multiply_add(p, r, set1(0.6931472420692444f));
  }
  return scale2_flushed(multiply_add(p, r, set1(1.f)), n);
}

// The value as type T would hold it.
template <class T>
inline V rounded(V v) {
  if constexpr (sizeof(T) == 4)
    return v;
  else
    return rounded_to_bf16(v);
}

#if defined(__AVX512BF16__)
// Two rows as bf16, even in the low half; and woven into pairs as block_product.h wants b.
inline __m512i narrow2(V even, V odd) { return (__m512i)_mm512_cvtne2ps_pbh(odd, even); }
inline __m512i woven(__m512i halves) {
  const __m512i index = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(index, halves);
}
#endif

// limit[j] = keys that column j of a block may see, counted from key k0; ascending in j. Rows of s [rows][ld] (key x
// column) get kMasked where the column may not look.
inline void mask_scores(const int32_t* limit, int64_t columns, int64_t rows, float* s, int64_t ld) {
  int64_t blind = 0;  // columns [0, blind) do not see row k
  for (int64_t k = limit[0] < 0 ? 0 : limit[0]; k < rows; ++k) {
    while (blind < columns && limit[blind] <= k) ++blind;
    for_lanes(blind, [&](int64_t i, int n) { store_some(s + k * ld + i, set1(kMasked), n); });
  }
}
// Rows of a group of columns that need a look: up to the last column's limit, made even.
inline int64_t seen_rows(int32_t last_limit, int64_t rows) {
  const int64_t n = (int64_t{last_limit} + 1) / 2 * 2;
  return n < 0 ? 0 : n > rows ? rows : n;
}

// Pieces of one block of memory, each aligned to 64 bytes. With a null base it only counts.
class Pieces {
 public:
  explicit Pieces(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(n * static_cast<int64_t>(sizeof(T)), 64);
    return p;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace birkhoff::kernels::BK_ISA
