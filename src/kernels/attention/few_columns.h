// Attention of few columns, as a decoding step has: packing keys and transposing values would take longer than their
// products, so both are read where they lie and O is kept by rows. Every sum runs in the order that it has among many
// columns (attention_forward.isa.cc), so a query has the same bits in both. Include from there only.
#pragma once
#include "kernels/attention/key_tile.h"
#include "kernels/attention/online_softmax.h"

namespace birkhoff::kernels::BK_ISA {

inline constexpr int64_t kFew = 16;        // columns; those of the matrices below, too
inline constexpr int64_t kTileKeys = 32;   // keys that are read at a time
inline constexpr int64_t kValueUnit = 32;  // columns of values, a multiple of what add_values takes at a time

#if defined(__AVX2__)
inline constexpr int kScoreRows = 8, kScoreWide = 1, kValueWide = 2;  // sums enough to hide the latency of a product
#else
inline constexpr int kScoreRows = 4, kScoreWide = 4, kValueWide = 8;
#endif

template <class T>
struct FewBuffers {
  using Op = Operand<T>;
  Op* q;               // b = Q^T [qk][kFew]
  float* s;            // S^T [kKeys][kFew]
  Op* p;               // b = P^T [kKeys][kFew]
  float* acc;          // O [kFew][vd], not yet divided
  float *top, *total;  // [kFew] as in softmax_step
  Op* k;               // copied keys [kTileKeys][qk]
  T* v;                // copied values [kTileKeys][vd]
  Op *rows_p, *woven;  // of tiles: a = P [kFew][kKeys], b = V [kKeys][vd]
  int64_t qk, vd;      // padded widths
};

template <class T>
int64_t layout_few(void* base, int64_t qk_dim, int64_t v_dim, FewBuffers<T>& b) {
  using Op = Operand<T>;
  Pieces pieces(base);
  b.qk = round_up(qk_dim, kDepth<Op>), b.vd = round_up(v_dim, kValueUnit);
  b.q = pieces.take<Op>(kFew * b.qk);
  b.s = pieces.take<float>(kKeys * kFew);
  b.p = pieces.take<Op>(kKeys * kFew);
  b.acc = pieces.take<float>(kFew * b.vd);
  b.top = pieces.take<float>(kFew), b.total = pieces.take<float>(kFew);
  b.k = pieces.take<Op>(kTileKeys * b.qk);
  b.v = pieces.take<T>(kTileKeys * b.vd);
  b.rows_p = pieces.take<Op>(kKeys * kFew);
  b.woven = pieces.take<Op>(kKeys * b.vd);
  return pieces.used();
}

// s [kTileKeys][kFew] = K Q^T for the first n columns.
template <class Op>
inline void few_scores(KeyTile<Op> k, const Op* q, int64_t depth, int64_t n, float* s) {
#if defined(BK_ISA_amx)
  if constexpr (sizeof(Op) == 2) return product(k.data, k.ld, q, kFew, s, kFew, kTileKeys, kFew, depth, false);
#endif
  for (int64_t j = 0; j < n; j += kScoreWide * kLanes)
    for (int64_t i = 0; i < kTileKeys; i += kScoreRows)
      product_block<kScoreRows, kScoreWide>(k.data + i * k.ld, k.ld, q + j * kPair<Op>, kFew, s + i * kFew + j, kFew,
                                            depth, false);
}

// acc [R][kValueWide vectors] += P V over `rows` keys; p as softmax_step leaves it.
template <int R, class T>
inline void values_block(const float* p, const T* v, int64_t ld, int64_t rows, float* acc, int64_t ldc) {
  constexpr int N = kValueWide;
  V s[R][N];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) s[i][j] = load(acc + i * ldc + j * kLanes);
  for (int64_t u = 0; u < rows; ++u) {
    V w[N];
    for (int j = 0; j < N; ++j) w[j] = load(v + u * ld + j * kLanes);
    for (int i = 0; i < R; ++i) {
      const V x = set1(p[u * kFew + i]);
      for (int j = 0; j < N; ++j) s[i][j] = multiply_add(x, w[j], s[i][j]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < N; ++j) store(acc + i * ldc + j * kLanes, s[i][j]);
}
#if defined(__AVX512BF16__)
template <int R>
inline void values_block(const bf16* p, const bf16* v, int64_t ld, int64_t rows, float* acc, int64_t ldc) {
  V s[R][2];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < 2; ++j) s[i][j] = load(acc + i * ldc + j * 16);
  for (int64_t u = 0; u < rows; u += 2) {
    const __m512i even = _mm512_loadu_si512(v + u * ld),
                  odd = u + 1 < rows ? _mm512_loadu_si512(v + (u + 1) * ld) : _mm512_setzero_si512();
    __m512i w[2];
    weave(even, odd, w);
    for (int i = 0; i < R; ++i) {
      int pair;
      __builtin_memcpy(&pair, p + u * kFew + 2 * i, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      for (int j = 0; j < 2; ++j) s[i][j] = _mm512_dpbf16_ps(s[i][j], x, (__m512bh)w[j]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < 2; ++j) store(acc + i * ldc + j * 16, s[i][j]);
}
#endif

template <int R, class T, class Op>
inline void values_columns(const Op* p, KeyTile<T> v, int64_t rows, int64_t vd, float* acc) {
  for (int64_t c = 0; c < vd; c += kValueWide * kLanes) values_block<R>(p, v.data + c, v.ld, rows, acc + c, vd);
}

// acc [columns][vd] += P V for the keys of a tile.
template <class T, class Op>
inline void add_values(const Op* p, KeyTile<T> v, int64_t rows, int64_t columns, int64_t vd, float* acc) {
  for (int64_t i = 0; i < columns; i += 4, p += 4 * kPair<Op>, acc += 4 * vd) {
    switch (columns - i) {
      case 1:
        values_columns<1>(p, v, rows, vd, acc);
        break;
      case 2:
        values_columns<2>(p, v, rows, vd, acc);
        break;
      case 3:
        values_columns<3>(p, v, rows, vd, acc);
        break;
      default:
        values_columns<4>(p, v, rows, vd, acc);
    }
  }
}

// Values of keys [r, r + here), read where they lie unless rows are cut by a page or end within a vector.
template <class T>
inline KeyTile<T> value_tile(const AttentionRows& x, int64_t r, int64_t here, int64_t dim, int64_t width, T* copy) {
  if (width == dim && consecutive(x, r, here)) return {row_of<T>(x, r), x.stride};
  for (int64_t i = 0; i < here; ++i) {
    __builtin_memcpy(static_cast<void*>(copy + i * width), row_of<T>(x, r + i), static_cast<size_t>(dim) * sizeof(T));
    zero(copy + i * width + dim, width - dim);
  }
  return {copy, width};
}

#if defined(BK_ISA_amx)
// The same in tiles, whose sums have an order of their own: all keys [k0, k0 + here) of a step.
inline void add_values_in_tiles(const AttentionForward& a, const FewBuffers<bf16>& b, int64_t k0, int64_t here) {
  const int64_t depth = round_up(here, kTileKeys);
  for (int64_t u = 0; u < depth; u += kTileKeys) {
    __m512i pairs[16];
    for (int i = 0; i < 16; ++i) pairs[i] = _mm512_loadu_si512(b.p + (u + 2 * i) * kFew);
    transpose16(pairs);
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(b.rows_p + i * kKeys + u, pairs[i]);
  }
  pack_b([&](int64_t i) { return row_of<bf16>(a.v, k0 + i); }, here, a.v_dim, b.woven, b.vd, depth, b.vd);
  product(b.rows_p, kKeys, b.woven, b.vd, b.acc, b.vd, kFew, b.vd, depth, true);
}
#endif

// What was summed before shrinks for the columns [j, j + kLanes).
template <class T>
inline void shrink_rows(const FewBuffers<T>& b, int64_t j, int64_t columns, V factors) {
  if (!(reduce_max(set1(1.f) - factors) > 0.f)) return;  // mostly the reference stands and every factor is exactly 1
  float factor[kLanes];
  store(factor, factors);
  for (int64_t i = j; i < least(columns, j + kLanes); ++i)
    for (int64_t c = 0; c < b.vd; c += kLanes) {
      float* acc = b.acc + i * b.vd + c;
      store(acc, load(acc) * set1(factor[i - j]));
    }
}

// Keys [k0, k0 + here) of `keys`.
template <class T>
void few_step(const AttentionForward& a, const FewBuffers<T>& b, int64_t k0, int64_t here, int64_t keys,
              const int32_t* seen) {
  using Op = Operand<T>;
  const int64_t columns = a.col_end - a.col_begin, n = round_up(columns, kScoreWide * kLanes),
                rows = round_up(here, kTileKeys);
  for (int64_t u = 0; u < here; u += kTileKeys) {
    const int64_t some = least(here - u, kTileKeys), next = k0 + kKeys + u;
    fetch_rows<T>(a.k, next, least(next + kTileKeys, keys), a.qk_dim);
    few_scores(key_tile<T>(a.k, k0 + u, some, kTileKeys, a.qk_dim, b.qk, b.k), b.q, b.qk, n, b.s + u * kFew);
  }
  int32_t limit[kFew];
  for (int64_t j = 0; j < kFew; ++j) limit[j] = seen[j] - static_cast<int32_t>(k0);
  mask_scores(limit, n, rows, b.s, kFew);
  for (int64_t j = 0; j < n; j += kLanes)
    shrink_rows(b, j, columns,
                softmax_step<T, kFew>(b.s + j, seen_rows(limit[j + kLanes - 1], rows), rows, set1(a.scale * kLog2e),
                                      b.p + j * kPair<Op>, b.top + j, b.total + j));
  for (int64_t u = 0; u < here; u += kTileKeys) {
    const int64_t some = least(here - u, kTileKeys), next = k0 + kKeys + u;
    fetch_rows<T>(a.v, next, least(next + kTileKeys, keys), a.v_dim);
#if defined(BK_ISA_amx)
    if constexpr (sizeof(Op) == 2) continue;
#endif
    add_values(b.p + u * kFew, value_tile<T>(a.v, k0 + u, some, a.v_dim, b.vd, b.v), some, columns, b.vd, b.acc);
  }
#if defined(BK_ISA_amx)
  if constexpr (sizeof(Op) == 2) add_values_in_tiles(a, b, k0, here);
#endif
}

template <class T>
void forward_few(const AttentionForward& a) {
  const TileScope tiles;
  FewBuffers<T> b;
  layout_few(a.scratch, a.qk_dim, a.v_dim, b);
  const int64_t columns = a.col_end - a.col_begin;
  const auto query = [&](int64_t j) {
    const int64_t col = a.col_begin + j;
    return static_cast<const T*>(a.q.data) + col / a.heads * a.q.stride + col % a.heads * a.qk_dim;
  };
  pack_b_transposed(query, columns, a.qk_dim, b.q, kFew, b.qk, kFew);
  zero(b.acc, kFew * b.vd);
  zero(b.total, kFew);
  int32_t seen[kFew];  // padding columns copy the last one
  for (int64_t j = 0; j < kFew; ++j) {
    b.top[j] = kMasked;
    seen[j] = static_cast<int32_t>(a.first_visible + (a.col_begin + least(j, columns - 1)) / a.heads + 1);
  }
  const int64_t keys = seen[columns - 1];
  for (int64_t k0 = 0; k0 < keys; k0 += kKeys) few_step(a, b, k0, least(keys - k0, kKeys), keys, seen);
  store_lse(a, a.col_begin, columns, b.top, b.total);
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t col = a.col_begin + j;
    T* o = static_cast<T*>(a.o) + col / a.heads * a.o_stride + col % a.heads * a.v_dim;
    const V factor = set1(1.f / b.total[j]);
    for_lanes(a.v_dim, [&](int64_t c, int n) { store_some(o + c, load(b.acc + j * b.vd + c) * factor, n); });
  }
}

}  // namespace birkhoff::kernels::BK_ISA
