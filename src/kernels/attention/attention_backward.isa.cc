// Backward in the manner of FlashAttention-2 (Dao 2023): probabilities are recomputed from the saved log-sum-exp. With
// P = exp(scale S - lse), dP = V dO^T and delta = sum_j dO_j O_j, all transposed (key x query):
//   dS = P (dP - delta),  dV += P dO,  dK += scale dS Q,  dQ = scale K^T dS.
#include "kernels/attention/attention.h"
#include "kernels/attention/softmax_block.h"
#include "kernels/gemm/block_pack.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int64_t kKeys = 64, kColumns = 128;  // a key block against the queries of one head
constexpr int64_t kRowStep = 32;

template <class Op>
struct Buffers {
  // Of the whole stretch of keys:
  Op *k, *v;  // a = K [keys][qk_k], a = V [keys][v_k]
  Op* kt;     // per key block: a = K^T [qk_m][kKeys]
  // Of a block of columns:
  Op *qt, *dot;         // b = Q^T [qk_k][kColumns], b = dO^T [v_k][kColumns]
  Op *q, *d_o;          // b = Q [kColumns][qk_m], b = dO [kColumns][v_m]
  float* dqt;           // dQ^T [qk_m][kColumns]
  float *lse2, *delta;  // [kColumns] lse * log2(e), sum_j dO_j O_j
  // Of one key block against one block of columns:
  float *s, *dp;                 // S^T, dP^T [kKeys][kColumns]
  Op *p, *ds;                    // a = P^T, a = dS^T [kKeys][kColumns]
  Op* ds_b;                      // b = dS^T [kKeys][kColumns]; in fp32 the same memory as ds
  int64_t qk_k, v_k, qk_m, v_m;  // widths padded for the depth of a product, and for its rows or columns
};

template <class Op>
int64_t layout(void* base, int64_t qk_dim, int64_t v_dim, int64_t keys, Buffers<Op>& b) {
  Pieces pieces(base);
  const int64_t n = round_up(keys, kKeys);
  b.qk_k = round_up(qk_dim, kDepth<Op>), b.v_k = round_up(v_dim, kDepth<Op>);
  b.qk_m = round_up(qk_dim, 16), b.v_m = round_up(v_dim, 16);
  b.k = pieces.take<Op>(n * b.qk_k);
  b.v = pieces.take<Op>(n * b.v_k);
  b.kt = pieces.take<Op>(n * b.qk_m);
  b.qt = pieces.take<Op>(kColumns * b.qk_k);
  b.dot = pieces.take<Op>(kColumns * b.v_k);
  b.q = pieces.take<Op>(kColumns * b.qk_m);
  b.d_o = pieces.take<Op>(kColumns * b.v_m);
  b.dqt = pieces.take<float>(kColumns * b.qk_m);
  b.lse2 = pieces.take<float>(kColumns);
  b.delta = pieces.take<float>(kColumns);
  b.s = pieces.take<float>(kKeys * kColumns);
  b.dp = pieces.take<float>(kKeys * kColumns);
  b.p = pieces.take<Op>(kKeys * kColumns);
  b.ds = pieces.take<Op>(kKeys * kColumns);
  b.ds_b = kPair<Op> == 1 ? b.ds : pieces.take<Op>(kKeys * kColumns);
  return pieces.used();
}

// Rows k and k + 1 of P and dS at column j, as the products want them.
template <class T>
inline void store_pair(const Buffers<float>& b, int64_t at, V p0, V p1, V d0, V d1) {
  store(b.p + at, rounded<T>(p0));
  store(b.p + at + kColumns, rounded<T>(p1));
  store(b.ds + at, rounded<T>(d0));
  store(b.ds + at + kColumns, rounded<T>(d1));
}
#if defined(__AVX512BF16__)
template <class T>
inline void store_pair(const Buffers<bf16>& b, int64_t at, V p0, V p1, V d0, V d1) {
  const int64_t row = at / kColumns * kColumns, column = at - row;  // kColumns is a power of two
  const __m512i p = narrow2(p0, p1), d = narrow2(d0, d1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.p + at), _mm512_castsi512_si256(p));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.p + at + kColumns), _mm512_extracti64x4_epi64(p, 1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.ds + at), _mm512_castsi512_si256(d));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.ds + at + kColumns), _mm512_extracti64x4_epi64(d, 1));
  _mm512_storeu_si512(b.ds_b + row + 2 * column, woven(d));
}
#endif

// P and dS of kLanes columns from j on; rows past `seen` are zeros.
template <class T, class Op>
void gradient_columns(const Buffers<Op>& b, int64_t j, int64_t seen, int64_t rows, V c) {
  const V lse2 = load(b.lse2 + j), delta = load(b.delta + j), none = set1(0.f);
  for (int64_t k = 0; k < seen; k += 2) {
    const int64_t at = k * kColumns + j;
    const V p0 = exp2<T>(multiply_add(load(b.s + at), c, none - lse2));
    const V p1 = exp2<T>(multiply_add(load(b.s + at + kColumns), c, none - lse2));
    store_pair<T>(b, at, p0, p1, p0 * (load(b.dp + at) - delta), p1 * (load(b.dp + at + kColumns) - delta));
  }
  for (int64_t k = seen; k < rows; k += 2) store_pair<T>(b, k * kColumns + j, none, none, none, none);
}

// One block of columns: tokens [t0, t0 + count) of head h.
template <class T, class Op>
class ColumnBlock {
 public:
  ColumnBlock(const AttentionBackward& args, const Buffers<Op>& buffers, int64_t head, int64_t first, int64_t count)
      : a(args), b(buffers), h(head), t0(first), columns(count), padded(round_up(count, kRowStep)) {}

  void run() {
    pack();
    const int64_t keys = a.first_visible + t0 + columns;
    for (int64_t k0 = 0; k0 < keys; k0 += kKeys) step(k0);
    float scale[kColumns];
    for (int64_t j = 0; j < kColumns; ++j) scale[j] = a.scale;
    unpack_transposed<T>(b.dqt, kColumns, scale, columns, a.qk_dim,
                         [&](int64_t j) { return static_cast<T*>(a.dq) + (t0 + j) * a.dq_stride + h * a.qk_dim; });
  }

 private:
  const T* row(const AttentionRows& x, int64_t j, int64_t width) const {
    return static_cast<const T*>(x.data) + (t0 + j) * x.stride + h * width;
  }

  void pack() const {
    const auto query = [&](int64_t j) { return row(a.q, j, a.qk_dim); };
    const auto gradient = [&](int64_t j) { return row(a.d_o, j, a.v_dim); };
    pack_b_transposed(query, columns, a.qk_dim, b.qt, kColumns, b.qk_k, padded);
    pack_b_transposed(gradient, columns, a.v_dim, b.dot, kColumns, b.v_k, padded);
    pack_b(query, columns, a.qk_dim, b.q, b.qk_m, padded, b.qk_m);
    pack_b(gradient, columns, a.v_dim, b.d_o, b.v_m, padded, b.v_m);
    for (int64_t j = 0; j < columns; ++j) {
      const T *o = row(a.o, j, a.v_dim), *g = gradient(j);
      V sum = set1(0.f);
      for_lanes(a.v_dim, [&](int64_t i, int n) { sum = multiply_add(load_some(o + i, n), load_some(g + i, n), sum); });
      b.delta[j] = reduce_add(sum);
      b.lse2[j] = a.lse[(t0 + j) * a.lse_stride + h] * kLog2e;
    }
    for (int64_t j = columns; j < padded; ++j) b.delta[j] = 0.f, b.lse2[j] = -kMasked;  // padding columns: P = 0
  }

  void step(int64_t k0) const {
    int32_t limit[kColumns];
    for (int64_t j = 0; j < padded; ++j)
      limit[j] = static_cast<int32_t>(a.first_visible + t0 + (j < columns ? j : columns - 1) + 1 - k0);
    const int64_t last = limit[columns - 1], rows = last < kKeys ? round_up(last, kRowStep) : kKeys;
    // Columns before the first key of the block need nothing of it.
    const int64_t begin = limit[0] > 0 ? 0 : -limit[0] / kRowStep * kRowStep, n = padded - begin;
    product(b.k + k0 * b.qk_k, b.qk_k, b.qt + begin * kPair<Op>, kColumns, b.s + begin, kColumns, rows, n, b.qk_k,
            false);
    product(b.v + k0 * b.v_k, b.v_k, b.dot + begin * kPair<Op>, kColumns, b.dp + begin, kColumns, rows, n, b.v_k,
            false);
    mask_scores(limit + begin, n, rows, b.s + begin, kColumns);
    for (int64_t j = begin; j < padded; j += kLanes)
      gradient_columns<T>(b, j, seen_rows(limit[j + kLanes - 1], rows), rows, set1(a.scale * kLog2e));
    product(b.p + begin, kColumns, b.d_o + begin * b.v_m, b.v_m, a.dv + k0 * b.v_m, b.v_m, rows, b.v_m, n, true);
    product(b.ds + begin, kColumns, b.q + begin * b.qk_m, b.qk_m, a.dk + k0 * b.qk_m, b.qk_m, rows, b.qk_m, n, true);
    product(b.kt + k0 * b.qk_m, kKeys, b.ds_b + begin * kPair<Op>, kColumns, b.dqt + begin, kColumns, b.qk_m, n, rows,
            k0 > 0);
  }

  const AttentionBackward& a;
  const Buffers<Op>& b;
  const int64_t h, t0, columns, padded;
};

template <class T>
void backward(const AttentionBackward& a) {
  using Op = Operand<T>;
  const TileScope tiles;
  Buffers<Op> b;
  const int64_t keys = a.first_visible + a.tokens;
  layout(a.scratch, a.qk_dim, a.v_dim, keys, b);
  const auto key = [&](int64_t j) { return static_cast<const T*>(a.k.data) + j * a.k.stride; };
  const auto value = [&](int64_t j) { return static_cast<const T*>(a.v.data) + j * a.v.stride; };
  pack_rows(key, keys, a.qk_dim, b.k, b.qk_k, round_up(keys, kKeys));
  pack_rows(value, keys, a.v_dim, b.v, b.v_k, round_up(keys, kKeys));
  for (int64_t k0 = 0; k0 < keys; k0 += kKeys) {
    const auto block_key = [&](int64_t j) { return key(k0 + j); };
    pack_a_transposed(block_key, keys - k0 < kKeys ? keys - k0 : kKeys, a.qk_dim, b.kt + k0 * b.qk_m, kKeys, b.qk_m,
                      kKeys);
  }
  for (int64_t h = 0; h < a.heads; ++h)
    for (int64_t t0 = 0; t0 < a.tokens; t0 += kColumns)
      ColumnBlock<T, Op>(a, b, h, t0, a.tokens - t0 < kColumns ? a.tokens - t0 : kColumns).run();
}

int64_t scratch_bytes(int64_t qk_dim, int64_t v_dim, int64_t keys) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, qk_dim, v_dim, keys, f), narrow = layout(nullptr, qk_dim, v_dim, keys, h);
  return wide > narrow ? wide : narrow;
}

template <class T>
void store_scaled(const float* x, int64_t n, float scale, void* out) {
  for_lanes(n, [&](int64_t i, int m) { store_some(static_cast<T*>(out) + i, load_some(x + i, m) * set1(scale), m); });
}

}  // namespace

const AttentionBackwardKernels attention_backward_kernels = {scratch_bytes, backward<float>, backward<bf16>,
                                                             store_scaled<float>, store_scaled<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
