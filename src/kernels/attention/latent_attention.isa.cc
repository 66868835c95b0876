#include "kernels/attention/latent_attention.h"

#include "kernels/attention/key_block_product.h"
#include "kernels/attention/key_tile.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int64_t kKeyStep = 32;  // keys that are read from memory at a time, few enough for the first-level cache

template <class Op>
struct Buffers {
  Op* q;         // b = Q^T [qk][n]
  Op *tile, *x;  // gathered keys as a [kKeyStep][qk], values of the piece as b [kLatentPiece][vd]
  float* s;      // S^T [kLatentPiece][n]
  Op *p, *pt;    // P^T [kKeyTile][n], P [n][kKeyTile]
  int64_t n, qk, vd;
};

template <class Op>
int64_t layout(void* base, int64_t qk_dim, int64_t v_dim, int64_t columns, Buffers<Op>& b) {
  Pieces pieces(base);
  b.n = round_up(columns, 16), b.qk = round_up(qk_dim, kDepth<Op>), b.vd = round_up(v_dim, 16);
  b.q = pieces.take<Op>(b.qk * b.n);
  b.tile = pieces.take<Op>(kKeyStep * b.qk);
  b.x = pieces.take<Op>(kLatentPiece * b.vd);
  b.s = pieces.take<float>(kLatentPiece * b.n);
  b.p = pieces.take<Op>(kKeyTile * b.n);
  b.pt = pieces.take<Op>(kKeyTile * b.n);
  return pieces.used();
}

int64_t scratch_bytes(int64_t qk_dim, int64_t v_dim, int64_t columns) {
  Buffers<float> f;
  Buffers<bf16> h;
  const int64_t wide = layout(nullptr, qk_dim, v_dim, columns, f), narrow = layout(nullptr, qk_dim, v_dim, columns, h);
  return wide > narrow ? wide : narrow;
}

// The logits of all keys, and of every column the largest: kMasked where it sees none. Values are packed as keys pass.
template <class T, class Op>
void scores(const LatentPiece& a, const Buffers<Op>& b) {
  int32_t limit[kLatentColumns];
  const int64_t columns = a.col_end - a.col_begin;
  for (int64_t j = 0; j < b.n; ++j) {
    const int64_t seen = a.first_visible + 1 + (a.col_begin + (j < columns ? j : columns - 1)) / a.heads;
    limit[j] = static_cast<int32_t>(seen < a.keys ? seen : a.keys);
  }
  for (int64_t k0 = 0; k0 < a.keys; k0 += kKeyStep) {
    const int64_t here = a.keys - k0 < kKeyStep ? a.keys - k0 : kKeyStep, rows = round_up(here, kRowUnit);
    if (a.cache.pages) fetch_rows<T>(a.cache, k0 + kKeyStep, least(k0 + 2 * kKeyStep, a.keys), a.qk_dim);
    const KeyTile<Op> keys = key_tile<T>(a.cache, k0, here, rows, a.qk_dim, b.qk, b.tile);
    product(keys.data, keys.ld, b.q, b.n, b.s + k0 * b.n, b.n, rows, b.n, b.qk, false);
    const auto value = [&](int64_t i) { return row_of<T>(a.cache, k0 + i); };
    pack_b(value, here, a.v_dim, b.x + k0 * b.vd, b.vd, round_up(here, kDepth<Op>), b.vd);
  }
  mask_scores(limit, b.n, a.keys, b.s, b.n);
  const V c = set1(a.scale * kLog2e);
  for (int64_t j = 0; j < b.n; j += kLanes) {
    V top = set1(kMasked);
    for (int64_t u = 0; u < a.keys; ++u) top = max(top, load(b.s + u * b.n + j));
    store(a.top + j, top * c);
  }
}

template <class T>
void piece(const LatentPiece& a) {
  using Op = Operand<T>;
  const TileScope tiles;
  Buffers<Op> b;
  const int64_t columns = a.col_end - a.col_begin;
  layout(a.scratch, a.qk_dim, a.v_dim, columns, b);
  const auto query = [&](int64_t j) {
    const int64_t c = a.col_begin + j;
    return static_cast<const T*>(a.q.data) + c / a.heads * a.q.stride + c % a.heads * a.qk_dim;
  };
  pack_b_transposed(query, columns, a.qk_dim, b.q, b.n, b.qk, b.n);
  scores<T>(a, b);
  zero(a.total, b.n);
  zero(a.o, b.n * b.vd);
  for (int64_t k0 = 0; k0 < a.keys; k0 += kKeyTile) {
    const int64_t here = a.keys - k0 < kKeyTile ? a.keys - k0 : kKeyTile, depth = round_up(here, kDepth<Op>);
    weigh_tile<T>(b.s + k0 * b.n, here, b.n, a.scale, a.top, b.p, a.total);
    pack_a_transposed([&](int64_t u) { return b.p + u * b.n; }, here, b.n, b.pt, kKeyTile, b.n, depth);
    product(b.pt, kKeyTile, b.x + k0 * b.vd, b.vd, a.o, b.vd, b.n, b.vd, depth, true);
  }
}

// N vectors of the sum over pieces, from column c on.
template <int N, class T>
void fold_columns(const LatentFold& a, V factor, int64_t c) {
  V sum[N];
  for (int j = 0; j < N; ++j) sum[j] = set1(0.f);
  for (int64_t i = 0; i < a.pieces; ++i) {
    const V weight = set1(a.top[i * a.step]);
    const float* o = a.o + i * a.o_step + c;
    for (int j = 0; j < N; ++j) sum[j] = multiply_add(weight, load(o + j * kLanes), sum[j]);
  }
  for (int j = 0; j < N; ++j) {
    const int64_t at = c + j * kLanes, left = a.v_dim - at;
    if (left > 0) store_some(static_cast<T*>(a.out) + at, sum[j] * factor, clamp_count(left, kLanes));
  }
}

template <class T>
void fold(const LatentFold& a) {
  float top = a.top[0];
  for (int64_t i = 1; i < a.pieces; ++i) top = a.top[i * a.step] > top ? a.top[i * a.step] : top;
  float total = 0;
  for (int64_t i = 0; i < a.pieces; ++i) {
    float& weight = a.top[i * a.step];
    float lanes[kLanes];
    store(lanes, exp2<float>(set1(weight - top)));
    weight = lanes[0];
    total += weight * a.total[i * a.step];
  }
  const V factor = set1(1.f / total);
  constexpr int kMany = 4;
  int64_t c = 0;
  for (; c + kMany * kLanes <= a.v_dim; c += kMany * kLanes) fold_columns<kMany, T>(a, factor, c);
  for (; c < a.v_dim; c += kLanes) fold_columns<1, T>(a, factor, c);
}

}  // namespace

const LatentAttentionKernels latent_attention_kernels = {scratch_bytes, piece<float>, piece<bf16>, fold<float>,
                                                         fold<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
