// Products of a block of queries with gathered keys. Include from *.isa.cc only.
#pragma once
#include "kernels/attention/key_block.h"
#include "kernels/attention/softmax_block.h"
#include "kernels/gemm/block_pack.h"

namespace birkhoff::kernels::BK_ISA {

// Rows of `a` come in this unit: fewer than the 16 of block_product.h where no tile asks for them.
#if defined(BK_ISA_amx)
inline constexpr int64_t kRowUnit = 16;
#else
inline constexpr int64_t kRowUnit = 4;
#endif

// Operands of a block: bf16 pairs sum two keys at a time, which would let the keys of other queries change how a
// query's own pair up; blocks of several queries therefore compute in fp32 whatever the storage.
template <class T>
struct Type {
  using type = T;
};
template <class T, class F>
inline void with_operand(const KeyBlock& block, F&& f) {
  if (block.seen)
    f(Type<float>());
  else
    f(Type<Operand<T>>());
}

template <class T>
inline auto rows_of(const AttentionRows& x, const int32_t* keys) {
  return [=](int64_t i) { return row_of<T>(x, keys[i]); };
}
template <class T>
inline auto column_of(const Columns& x) {
  return [=](int64_t c) {
    return static_cast<const T*>(x.data) + c / x.inner * x.outer_step + c % x.inner * x.inner_step;
  };
}
// Columns of attention: the heads of a query side by side.
inline Columns query_columns(const AttentionRows& x, int64_t queries, int64_t heads, int64_t dim) {
  return {x.data, queries * heads, heads, x.stride, dim};
}
inline int64_t tile_keys(const KeyBlock& b, int64_t k0) { return b.count - k0 < kKeyTile ? b.count - k0 : kKeyTile; }

// s [count rounded up][n] = K x for all keys of the block; x: b [round_up(dim, kDepth)][n]; tile has room for kKeyTile
// rows of that depth.
template <class T, class Op>
inline void key_products(const KeyBlock& b, const AttentionRows& k, int64_t dim, const Op* x, int64_t n, Op* tile,
                         float* s) {
  const int64_t depth = round_up(dim, kDepth<Op>);
  for (int64_t k0 = 0; k0 < b.count; k0 += kKeyTile) {
    const int64_t here = tile_keys(b, k0), rows = round_up(here, kRowUnit);
    pack_rows(rows_of<T>(k, b.keys + k0), here, dim, tile, depth, rows);
    product(tile, depth, x, n, s + k0 * n, n, rows, n, depth, false);
  }
}

// Weights of a tile of keys: p [here][n] = 2^(scale log2(e) s - top), as T holds them; total [n] += them as they are.
template <class T, class Op>
inline void weigh_tile(const float* s, int64_t here, int64_t n, float scale, const float* top, Op* p, float* total) {
  for (int64_t j = 0; j < n; j += kLanes) {
    const V c = set1(scale * kLog2e), shift = set1(0.f) - load(top + j);
    V sum = load(total + j);
    for (int64_t u = 0; u < here; ++u) {
      const V weight = exp2<T>(multiply_add(load(s + u * n + j), c, shift));
      sum = sum + weight;
      store(p + u * n + j, rounded<T>(weight));
    }
    store(total + j, sum);
  }
}

// kMasked where a query does not list the key; heads * query is the query's first column.
inline void mask_unlisted(const KeyBlock& b, int64_t heads, int64_t n, float* s) {
  if (!b.seen) return;
  const unsigned all = (1u << b.queries) - 1u;
  for (int64_t u = 0; u < b.count; ++u) {
    if (b.seen[u] == all) continue;
    for (int64_t i = 0; i < b.queries; ++i)
      if (!(b.seen[u] >> i & 1))
        for (int64_t h = 0; h < heads; ++h) s[u * n + i * heads + h] = kMasked;
  }
}

// c [columns][width] += W^T X for the keys [k0, k0 + here): w their stored weights [here][ldw], x rows gathered at
// their keys. wt has room for [round_up(columns, 16)][kKeyTile], xb for [kKeyTile][width]; width = round_up(dim, 16).
template <class T, class Op>
inline void add_columns(const KeyBlock& b, int64_t k0, const Op* w, int64_t ldw, int64_t columns,
                        const AttentionRows& x, int64_t dim, Op* wt, Op* xb, float* c) {
  const int64_t here = tile_keys(b, k0), depth = round_up(here, kDepth<Op>), width = round_up(dim, 16),
                m = round_up(columns, 16);
  pack_a_transposed([=](int64_t u) { return w + u * ldw; }, here, m, wt, kKeyTile, m, depth);
  pack_b(rows_of<T>(x, b.keys + k0), here, dim, xb, width, depth, width);
  product(wt, kKeyTile, xb, width, c, width, m, width, depth, true);
}

}  // namespace birkhoff::kernels::BK_ISA
