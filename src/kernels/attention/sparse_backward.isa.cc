// Backward of sparse attention in two steps, so that no two tasks add to one key: first per block of queries,
// probabilities again from the saved log-sum-exp, P = exp(scale S - lse), dS = P (dP - delta), dQ = scale dS K; P and
// dS are stored. Then per tile of keys, over the blocks in their order, dK += scale dS^T Q and dV += P^T dO.
#include "kernels/attention/key_block_product.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class Op>
struct Buffers {
  Op *q, *d_o;    // b = Q^T [qk][n], dO^T [v][n]
  Op *tile, *x;   // gathered rows as a, as b
  float *s, *dp;  // [kKeyTile][n]
  Op* pt;         // dS [n][kKeyTile]
  float* dq;      // [n][qk_m]
  float *lse2, *delta;
  int64_t n, qk, vd, qk_m;
};

template <class Op>
int64_t layout(void* base, int64_t qk_dim, int64_t v_dim, int64_t columns, Buffers<Op>& b) {
  Pieces pieces(base);
  b.n = round_up(columns, kDepth<Op>), b.qk = round_up(qk_dim, kDepth<Op>), b.vd = round_up(v_dim, kDepth<Op>);
  b.qk_m = round_up(qk_dim, 16);
  b.q = pieces.take<Op>(b.qk * b.n);
  b.d_o = pieces.take<Op>(b.vd * b.n);
  b.tile = pieces.take<Op>(kKeyTile * (b.qk > b.vd ? b.qk : b.vd));
  b.x = pieces.take<Op>(kKeyTile * b.qk_m);
  b.s = pieces.take<float>(kKeyTile * b.n);
  b.dp = pieces.take<float>(kKeyTile * b.n);
  b.pt = pieces.take<Op>(kKeyTile * b.n);
  b.dq = pieces.take<float>(b.n * b.qk_m);
  b.lse2 = pieces.take<float>(b.n);
  b.delta = pieces.take<float>(b.n);
  return pieces.used();
}

int64_t scratch_bytes(int64_t qk_dim, int64_t v_dim, int64_t columns, int64_t) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, qk_dim, v_dim, columns, f), narrow = layout(nullptr, qk_dim, v_dim, columns, h);
  return wide > narrow ? wide : narrow;
}

template <class T, class Op>
class QueryBlock {
 public:
  explicit QueryBlock(const SparseBackward& args) : a(args), columns(args.block.queries * args.heads) {
    layout(a.scratch, a.qk_dim, a.v_dim, columns, b);
  }

  void run() {
    pack();
    zero(b.dq, b.n * b.qk_m);
    for (int64_t k0 = 0; k0 < a.block.count; k0 += kKeyTile) {
      weights(k0);
      add_columns<T>(a.block, k0, static_cast<const Op*>(a.ds) + k0 * b.n, b.n, columns, a.k, a.qk_dim, b.pt, b.x,
                     b.dq);
    }
    for (int64_t j = 0; j < columns; ++j) {
      T* out = static_cast<T*>(a.dq) + j / a.heads * a.dq_stride + j % a.heads * a.qk_dim;
      for_lanes(a.qk_dim,
                [&](int64_t i, int m) { store_some(out + i, load(b.dq + j * b.qk_m + i) * set1(a.scale), m); });
    }
  }

 private:
  void pack() {
    const Columns q = query_columns(a.q, a.block.queries, a.heads, a.qk_dim);
    const Columns o = query_columns(a.o, a.block.queries, a.heads, a.v_dim),
                  d_o = query_columns(a.d_o, a.block.queries, a.heads, a.v_dim);
    pack_b_transposed(column_of<T>(q), columns, a.qk_dim, b.q, b.n, b.qk, b.n);
    pack_b_transposed(column_of<T>(d_o), columns, a.v_dim, b.d_o, b.n, b.vd, b.n);
    for (int64_t j = 0; j < columns; ++j) {
      const T *x = column_of<T>(o)(j), *g = column_of<T>(d_o)(j);
      V sum = set1(0.f);
      for_lanes(a.v_dim, [&](int64_t i, int n) { sum = multiply_add(load_some(x + i, n), load_some(g + i, n), sum); });
      b.delta[j] = reduce_add(sum);
      a.delta[j / a.heads * a.delta_stride + j % a.heads] = b.delta[j];
      b.lse2[j] = a.lse[j / a.heads * a.lse_stride + j % a.heads] * kLog2e;
    }
    for (int64_t j = columns; j < b.n; ++j) b.delta[j] = 0.f, b.lse2[j] = -kMasked;  // padding columns: P = 0
  }

  // P and dS of one tile of keys.
  void weights(int64_t k0) {
    const int64_t here = tile_keys(a.block, k0), rows = round_up(here, kRowUnit);
    const int32_t* keys = a.block.keys + k0;
    pack_rows(rows_of<T>(a.k, keys), here, a.qk_dim, b.tile, b.qk, rows);
    product(b.tile, b.qk, b.q, b.n, b.s, b.n, rows, b.n, b.qk, false);
    pack_rows(rows_of<T>(a.v, keys), here, a.v_dim, b.tile, b.vd, rows);
    product(b.tile, b.vd, b.d_o, b.n, b.dp, b.n, rows, b.n, b.vd, false);
    mask_unlisted({keys, a.block.seen ? a.block.seen + k0 : nullptr, here, a.block.queries}, a.heads, b.n, b.s);
    Op *p = static_cast<Op*>(a.p) + k0 * b.n, *ds = static_cast<Op*>(a.ds) + k0 * b.n;
    const V c = set1(a.scale * kLog2e);
    for (int64_t j = 0; j < b.n; j += kLanes) {
      const V lse2 = load(b.lse2 + j), delta = load(b.delta + j);
      for (int64_t u = 0; u < here; ++u) {
        const int64_t at = u * b.n + j;
        const V w = exp2<T>(multiply_add(load(b.s + at), c, set1(0.f) - lse2));
        store(p + at, rounded<T>(w));
        store(ds + at, rounded<T>(w * (load(b.dp + at) - delta)));
      }
    }
  }

  const SparseBackward& a;
  const int64_t columns;
  Buffers<Op> b;
};

template <class T>
void backward(const SparseBackward& a) {
  const TileScope tiles;
  with_operand<T>(a.block, [&](auto op) { QueryBlock<T, typename decltype(op)::type>(a).run(); });
}

int64_t key_gradient_bytes(int64_t dim, int64_t columns) {
  return (round_up(columns, 32) + kKeyTile) * round_up(dim, 16) * static_cast<int64_t>(sizeof(float)) + 128;
}

template <class T, class Op>
void add_keys(const KeyGradient& a) {
  const int64_t width = round_up(a.dim, 16), depth = round_up(a.x.count, kDepth<Op>);
  Pieces pieces(a.scratch);
  Op* x = pieces.take<Op>(depth * width);
  float* sum = pieces.take<float>(kKeyTile * width);
  pack_b(column_of<T>(a.x), a.x.count, a.dim, x, width, depth, width);
  const auto row = [&](int64_t u) { return a.acc + (a.block.keys[u] - a.first_key) * width; };
  const int64_t here = a.end - a.begin, rows = round_up(here, kRowUnit);
  const size_t bytes = static_cast<size_t>(width) * sizeof(float);
  for (int64_t u = 0; u < here; ++u) __builtin_memcpy(sum + u * width, row(a.begin + u), bytes);
  zero(sum + here * width, (rows - here) * width);
  product(static_cast<const Op*>(a.weights) + a.begin * depth, depth, x, width, sum, width, rows, width, depth, true);
  for (int64_t u = 0; u < here; ++u) __builtin_memcpy(row(a.begin + u), sum + u * width, bytes);
}

template <class T>
void key_gradient(const KeyGradient& a) {
  const TileScope tiles;
  with_operand<T>(a.block, [&](auto op) { add_keys<T, typename decltype(op)::type>(a); });
}

template <class T>
void store_sum(const float* x, int64_t n, float scale, const float* y, int64_t n_y, void* out) {
  T* o = static_cast<T*>(out);
  for_lanes(n_y, [&](int64_t i, int m) {
    store_some(o + i, multiply_add(load_some(x + i, m), set1(scale), load_some(y + i, m)), m);
  });
  for_lanes(n - n_y, [&](int64_t i, int m) { store_some(o + n_y + i, load_some(x + n_y + i, m) * set1(scale), m); });
}

}  // namespace

const SparseBackwardKernels sparse_backward_kernels = {scratch_bytes,      backward<float>,     backward<bf16>,
                                                       key_gradient_bytes, key_gradient<float>, key_gradient<bf16>,
                                                       store_sum<float>,   store_sum<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
