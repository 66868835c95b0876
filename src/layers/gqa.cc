#include "layers/gqa.h"

#include "ops/rows/elementwise.h"

namespace birkhoff::layers {
namespace {
ops::AttentionShape attention_shape(const Gqa::Spec& s) {
  return {s.heads, s.kv_heads, s.head_dim, s.head_dim, s.scale};
}
}  // namespace

Gqa::Weights::Weights(const Spec& s)
    : qkv(s.q_cols() + s.cache_cols(), s.dim), out(s.dim, s.q_cols()), q_cols(s.q_cols()), kv_cols(s.kv_cols()) {}

Gqa::Saved Gqa::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool for_backward, Cache* cache,
                        int64_t cached) {
  Saved r;
  r.cache = cache ? cache->rows.row_block(0, cached + tokens) : arena.mat(dtype, tokens, s.cache_cols());
  r.a = arena.mat(dtype, tokens, s.q_cols() + s.cache_cols());
  r.q = r.a.col_block(0, s.q_cols());
  r.o = arena.mat(dtype, tokens, s.q_cols());
  if (for_backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  return r;
}

void Gqa::forward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                  const TokenContext& ctx, CMat x, Saved& sv, Mat y, Arena& scratch) {
  const int64_t T = x.rows, M = sv.cache.rows;
  linear_forward(exec, w.qkv, x, sv.a);
  ops::rope_apply(exec, rope, s.layout, ctx.position, sv.q, 0, s.heads, s.head_dim);
  const Mat fresh = sv.cache.row_block(M - T, T);
  ops::copy(exec, sv.a.col_block(s.q_cols(), s.cache_cols()), fresh);
  ops::rope_apply(exec, rope, s.layout, ctx.position, fresh, 0, s.kv_heads, s.head_dim);
  ops::attention_forward(exec, attention_shape(s), sv.q, sv.cache.col_block(0, s.kv_cols()),
                         sv.cache.col_block(s.kv_cols(), s.kv_cols()), ctx.first_key, sv.o, sv.lse, scratch);
  linear_forward(exec, w.out, sv.o, y);
}

void Gqa::backward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                   const TokenContext& ctx, CMat x, const Saved& sv, CMat dy, Mat dx, Weights& g, Arena& scratch) {
  Arena::Scope scope(scratch);
  const int64_t T = x.rows;
  Mat da = scratch.mat(x.dtype, T, s.q_cols() + s.cache_cols());
  Mat dq = da.col_block(0, s.q_cols()), dk = da.col_block(s.q_cols(), s.kv_cols()),
      dv = da.col_block(s.q_cols() + s.kv_cols(), s.kv_cols());
  Mat d_o = scratch.mat(x.dtype, T, s.q_cols());
  linear_backward(exec, w.out, sv.o, dy, d_o, g.out, scratch);
  ops::attention_backward(exec, attention_shape(s), sv.q, sv.cache.col_block(0, s.kv_cols()),
                          sv.cache.col_block(s.kv_cols(), s.kv_cols()), ctx.first_key, ctx.segment_start, sv.o, sv.lse,
                          d_o, dq, dk, dv, scratch);
  ops::rope_apply(exec, rope, s.layout, ctx.position, dq, 0, s.heads, s.head_dim, /*inverse=*/true);
  ops::rope_apply(exec, rope, s.layout, ctx.position, dk, 0, s.kv_heads, s.head_dim, /*inverse=*/true);
  linear_backward(exec, w.qkv, x, da, dx, g.qkv, scratch);
}

}  // namespace birkhoff::layers
