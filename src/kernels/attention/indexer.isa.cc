// Scores of the lightning indexer and the gradient of its KL loss. Columns are head-major: column h * queries + i, so
// that queries stand side by side and the sum over heads needs no reduction across lanes.
#include "kernels/attention/key_block_product.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

struct Shape {
  int64_t queries, heads, dim;
  int64_t columns() const { return queries * heads; }
};

template <class Op>
struct Buffers {
  Op *q, *tile;  // b = Q^T [depth][n]; gathered keys as a
  float *w, *s;  // [n]; S^T [keys][n]
  // Of the gradient alone:
  float *i, *p;    // I and the target [keys][kMostQueries]
  float *st, *x;   // dS [n][kKeyTile], gathered keys as b
  float *dq, *dw;  // [n][width], [n]
  int64_t n, depth, width;
};

template <class Op>
int64_t layout(void* base, int64_t dim, int64_t columns, int64_t keys, bool gradient, Buffers<Op>& b) {
  Pieces pieces(base);
  b.n = round_up(columns, 16), b.depth = round_up(dim, kDepth<Op>), b.width = round_up(dim, 16);
  b.q = pieces.take<Op>(b.depth * b.n);
  b.tile = pieces.take<Op>(kKeyTile * b.depth);
  b.w = pieces.take<float>(b.n);
  b.s = pieces.take<float>((gradient ? keys + kKeyTile : kKeyTile) * b.n);
  if (!gradient) return pieces.used();
  b.i = pieces.take<float>((keys + kKeyTile) * kMostQueries);
  b.p = pieces.take<float>((keys + kKeyTile) * kMostQueries);
  b.st = pieces.take<float>(kKeyTile * b.n);
  b.x = pieces.take<float>(kKeyTile * b.width);
  b.dq = pieces.take<float>(b.n * b.width);
  b.dw = pieces.take<float>(b.n);
  return pieces.used();
}

int64_t scratch_bytes(int64_t dim, int64_t columns, int64_t keys) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, dim, columns, keys, true, f),
                narrow = layout(nullptr, dim, columns, keys, true, h);
  return wide > narrow ? wide : narrow;
}
int64_t score_bytes(int64_t dim, int64_t columns) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, dim, columns, 0, false, f), narrow = layout(nullptr, dim, columns, 0, false, h);
  return wide > narrow ? wide : narrow;
}

template <class T, class Op>
void pack_queries(const AttentionRows& q, const float* w, int64_t w_stride, const Shape& s, const Buffers<Op>& b) {
  const Columns columns{q.data, s.columns(), s.queries, s.dim, q.stride};
  pack_b_transposed(column_of<T>(columns), s.columns(), s.dim, b.q, b.n, b.depth, b.n);
  for (int64_t h = 0; h < s.heads; ++h)
    for (int64_t i = 0; i < s.queries; ++i) b.w[h * s.queries + i] = w[i * w_stride + h];
}

// out [keys][kMostQueries] = sum over heads, in their order, of w ReLU(S).
inline void sum_heads(const float* s, int64_t n, const float* w, const Shape& shape, int64_t keys, float* out) {
  for (int64_t u = 0; u < keys; ++u, s += n, out += kMostQueries) {
    if (shape.queries == 1) {
      float sum = 0.f;
      for (int64_t h = 0; h < shape.heads; ++h) {
        const float r = s[h] > 0.f ? s[h] : 0.f;
#if defined(__AVX2__)
        sum = __builtin_fmaf(w[h], r, sum);
#else
        sum = w[h] * r + sum;  // as multiply_add does
#endif
      }
      out[0] = sum;
      continue;
    }
    for_lanes(shape.queries, [&](int64_t i, int m) {
      V sum = set1(0.f);
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t c = h * shape.queries + i;
        sum = multiply_add(load_some(w + c, m), max(load_some(s + c, m), set1(0.f)), sum);
      }
      store_some(out + i, sum, m);
    });
  }
}

template <class T>
void scores(const IndexerScores& a) {
  using Op = Operand<T>;
  const TileScope tiles;
  const Shape shape{a.block.queries, a.heads, a.dim};
  Buffers<Op> b;
  layout(a.scratch, a.dim, shape.columns(), 0, false, b);
  pack_queries<T>(a.q, a.w, a.w_stride, shape, b);
  for (int64_t k0 = 0; k0 < a.block.count; k0 += kKeyTile) {
    const int64_t here = tile_keys(a.block, k0);
    key_products<T>({a.block.keys + k0, nullptr, here, a.block.queries}, a.k, a.dim, b.q, b.n, b.tile, b.s);
    sum_heads(b.s, b.n, b.w, shape, here, a.out + k0 * kMostQueries);
  }
}

template <class T>
class Gradient {
 public:
  explicit Gradient(const IndexerGradient& args) : a(args), shape{args.block.queries, args.heads, args.dim} {
    layout(a.scratch, a.dim, shape.columns(), a.block.count, true, b);
  }

  void run() {
    pack_queries<T>(a.q, a.w, a.w_stride, shape, b);
    key_products<T>(a.block, a.k, a.dim, b.q, b.n, b.tile, b.s);
    sum_heads(b.s, b.n, b.w, shape, a.block.count, b.i);
    for (int64_t i = 0; i < shape.queries; ++i) divergence(i);
    score_gradients();
    zero(b.dq, b.n * b.width);
    for (int64_t k0 = 0; k0 < a.block.count; k0 += kKeyTile)
      add_columns<T>(a.block, k0, static_cast<const float*>(a.ds) + k0 * b.n, b.n, shape.columns(), a.k, a.dim, b.st,
                     b.x, b.dq);
    for (int64_t c = 0; c < shape.columns(); ++c) {
      T* out = static_cast<T*>(a.dq) + c % shape.queries * a.dq_stride + c / shape.queries * a.dim;
      for_lanes(a.dim, [&](int64_t i, int m) { store_some(out + i, load(b.dq + c * b.width + i), m); });
      a.dw[c % shape.queries * a.dw_stride + c / shape.queries] = b.dw[c];
    }
  }

 private:
  bool listed(int64_t u, int64_t i) const { return a.block.seen[u] >> i & 1; }

  // The loss of query i; its column of b.i becomes scale (mass softmax(I) - p).
  void divergence(int64_t i) {
    float top = kMasked;
    int64_t n = 0;
    for (int64_t u = 0; u < a.block.count; ++u) {
      const bool mine = listed(u, i);
      b.p[u * kMostQueries + i] = mine ? a.p[i * a.p_stride + n++] : 0.f;
      float& score = b.i[u * kMostQueries + i];
      if (!mine) score = kMasked;
      if (score > top) top = score;
    }
    double total = 0, mass = 0, loss = 0;
    for (int64_t u = 0; u < a.block.count; ++u)
      if (listed(u, i)) total += static_cast<double>(__builtin_expf(b.i[u * kMostQueries + i] - top));
    const float lse = static_cast<float>(__builtin_log(total)) + top;
    for (int64_t u = 0; u < a.block.count; ++u) {
      const float p = b.p[u * kMostQueries + i];
      mass += static_cast<double>(p);
      if (p > 0.f) loss += static_cast<double>(p * (__builtin_logf(p) - (b.i[u * kMostQueries + i] - lse)));
    }
    a.loss[i] = static_cast<float>(loss);
    for (int64_t u = 0; u < a.block.count; ++u) {
      const int64_t at = u * kMostQueries + i;
      b.i[at] = listed(u, i) ? a.scale * (static_cast<float>(mass) * __builtin_expf(b.i[at] - lse) - b.p[at]) : 0.f;
    }
  }

  // dS = dI w where S > 0, dw = sum over keys of dI ReLU(S).
  void score_gradients() {
    zero(b.dw, b.n);
    float* ds = static_cast<float*>(a.ds);
    for (int64_t u = 0; u < a.block.count; ++u) {
      const float *s = b.s + u * b.n, *di = b.i + u * kMostQueries;
      float* out = ds + u * b.n;
      for (int64_t h = 0; h < shape.heads; ++h) {
        for_lanes(shape.queries, [&](int64_t i, int m) {
          const int64_t c = h * shape.queries + i;
          const V score = load_some(s + c, m), g = load_some(di + i, m), none = set1(0.f);
          store_some(out + c, where_greater(score, none, g * load_some(b.w + c, m), none), m);
          store_some(b.dw + c, multiply_add(g, max(score, none), load_some(b.dw + c, m)), m);
        });
      }
      for (int64_t c = shape.columns(); c < b.n; ++c) out[c] = 0.f;
    }
  }

  const IndexerGradient& a;
  const Shape shape;
  Buffers<float> b;
};

template <class T>
void gradient(const IndexerGradient& a) {
  const TileScope tiles;
  Gradient<T>(a).run();
}

}  // namespace

const IndexerKernels indexer_kernels = {score_bytes,  scratch_bytes,   scores<float>,
                                        scores<bf16>, gradient<float>, gradient<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
