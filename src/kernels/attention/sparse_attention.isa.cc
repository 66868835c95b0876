#include "kernels/attention/key_block_product.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class Op>
struct Buffers {
  Op* q;                      // b = Q^T [qk][n]
  Op *tile, *x;               // gathered keys as a, values as b
  float* s;                   // S^T [keys][n]
  Op *p, *pt;                 // P^T [kKeyTile][n], P [n][kKeyTile]
  float* o;                   // O [n][v], not yet divided
  float *top, *total, *sink;  // [n], in units of log2
  int64_t n, qk, vd;
};

template <class Op>
int64_t layout(void* base, int64_t qk_dim, int64_t v_dim, int64_t columns, int64_t keys, Buffers<Op>& b) {
  Pieces pieces(base);
  b.n = round_up(columns, 16), b.qk = round_up(qk_dim, kDepth<Op>), b.vd = round_up(v_dim, 16);
  b.q = pieces.take<Op>(b.qk * b.n);
  b.tile = pieces.take<Op>(kKeyTile * b.qk);
  b.x = pieces.take<Op>(kKeyTile * b.vd);
  b.s = pieces.take<float>((keys + kKeyTile) * b.n);
  b.p = pieces.take<Op>(kKeyTile * b.n);
  b.pt = pieces.take<Op>(kKeyTile * b.n);
  b.o = pieces.take<float>(b.n * b.vd);
  b.top = pieces.take<float>(b.n);
  b.total = pieces.take<float>(b.n);
  b.sink = pieces.take<float>(b.n);
  return pieces.used();
}

int64_t scratch_bytes(int64_t qk_dim, int64_t v_dim, int64_t columns, int64_t keys) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, qk_dim, v_dim, columns, keys, f),
                narrow = layout(nullptr, qk_dim, v_dim, columns, keys, h);
  return wide > narrow ? wide : narrow;
}

// The reference of each column's powers of two: its largest logit, the sink's among them.
template <class Op>
void find_tops(const SparseForward& a, const Buffers<Op>& b) {
  const V c = set1(a.scale * kLog2e);
  for (int64_t j = 0; j < b.n; j += kLanes) {
    V top = set1(kMasked);
    for (int64_t u = 0; u < a.block.count; ++u) top = max(top, load(b.s + u * b.n + j));
    store(b.top + j, max(top * c, load(b.sink + j)));
  }
}

template <class T, class Op>
void run(const SparseForward& a) {
  const KeyBlock& block = a.block;
  const int64_t columns = block.queries * a.heads;
  Buffers<Op> b;
  layout(a.scratch, a.qk_dim, a.v_dim, columns, block.count, b);
  const Columns q = query_columns(a.q, block.queries, a.heads, a.qk_dim);
  pack_b_transposed(column_of<T>(q), columns, a.qk_dim, b.q, b.n, b.qk, b.n);
  key_products<T>(block, a.k, a.qk_dim, b.q, b.n, b.tile, b.s);
  mask_unlisted(block, a.heads, b.n, b.s);
  for (int64_t j = 0; j < b.n; ++j) {
    const float logit = a.sink && j < columns ? a.sink[j % a.heads] * kLog2e : kMasked;
    b.sink[j] = logit > kMasked ? logit : kMasked;
  }
  find_tops(a, b);
  for (int64_t j = 0; j < b.n; j += kLanes) store(b.total + j, exp2<T>(load(b.sink + j) - load(b.top + j)));

  zero(b.o, b.n * b.vd);
  for (int64_t k0 = 0; k0 < block.count; k0 += kKeyTile) {
    const int64_t here = tile_keys(block, k0);
    weigh_tile<T>(b.s + k0 * b.n, here, b.n, a.scale, b.top, b.p, b.total);
    add_columns<T>(block, k0, b.p, b.n, columns, a.v, a.v_dim, b.pt, b.x, b.o);
  }
  for (int64_t j = 0; j < columns; ++j) {
    const V factor = set1(1.f / b.total[j]);
    T* out = static_cast<T*>(a.o) + j / a.heads * a.o_stride + j % a.heads * a.v_dim;
    for_lanes(a.v_dim, [&](int64_t i, int m) { store_some(out + i, load(b.o + j * b.vd + i) * factor, m); });
    if (a.lse) a.lse[j / a.heads * a.lse_stride + j % a.heads] = b.top[j] * kLn2 + __builtin_logf(b.total[j]);
  }
}

template <class T>
void forward(const SparseForward& a) {
  const TileScope tiles;
  with_operand<T>(a.block, [&](auto op) { run<T, typename decltype(op)::type>(a); });
}

template <class T, class Op>
void add_target(const SparseTarget& a) {
  const int64_t columns = a.block.queries * a.heads;
  Buffers<Op> b;
  layout(a.scratch, a.qk_dim, 0, columns, a.block.count, b);
  const Columns q = query_columns(a.q, a.block.queries, a.heads, a.qk_dim);
  pack_b_transposed(column_of<T>(q), columns, a.qk_dim, b.q, b.n, b.qk, b.n);
  key_products<T>(a.block, a.k, a.qk_dim, b.q, b.n, b.tile, b.s);
  for (int64_t j = 0; j < b.n; ++j)
    b.top[j] = j < columns ? a.lse[j / a.heads * a.lse_stride + j % a.heads] * kLog2e : 0.f;
  for (int64_t u = 0; u < a.block.count; ++u) {
    float* s = b.s + u * b.n;
    for (int64_t j = 0; j < b.n; j += kLanes)
      store(s + j, exp2<float>(multiply_add(load(s + j), set1(a.scale * kLog2e), set1(0.f) - load(b.top + j))));
    for (int64_t i = 0; i < a.block.queries; ++i)
      for (int64_t h = 0; h < a.heads; ++h) a.sum[u * kMostQueries + i] += s[i * a.heads + h];
  }
}

template <class T>
void target(const SparseTarget& a) {
  const TileScope tiles;
  with_operand<T>(a.block, [&](auto op) { add_target<T, typename decltype(op)::type>(a); });
}

}  // namespace

const SparseAttentionKernels sparse_attention_kernels = {scratch_bytes, forward<float>, forward<bf16>, target<float>,
                                                         target<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
