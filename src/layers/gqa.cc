#include "layers/gqa.h"

#include "ops/rows/elementwise.h"

namespace birkhoff::layers {
namespace {
ops::AttentionShape attention_shape(const Gqa::Spec& s) {
  return {s.heads, s.kv_heads, s.head_dim, s.head_dim, s.scale};
}
}  // namespace

Gqa::Weights::Weights(const Spec& s)
    : qkv({{"q_proj", s.q_cols()}, {"k_proj", s.kv_cols()}, {"v_proj", s.kv_cols()}}, s.dim),
      out({{"o_proj", s.dim, Role::output_projection}}, s.q_cols()) {}

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

void Gqa::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y) {
  const int64_t T = x.rows, M = sv.cache.rows;
  linear_forward(p.exec, w.qkv, x, sv.a);
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.q, {0, s.heads, s.head_dim});
  const Mat fresh = sv.cache.row_block(M - T, T);
  ops::copy(p.exec, sv.a.col_block(s.q_cols(), s.cache_cols()), fresh);
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, fresh, {0, s.kv_heads, s.head_dim});
  ops::attention_forward(p.exec, attention_shape(s), sv.q, sv.cache.col_block(0, s.kv_cols()),
                         sv.cache.col_block(s.kv_cols(), s.kv_cols()), p.ctx.first_key, sv.o, sv.lse);
  linear_forward(p.exec, w.out, sv.o, y);
}

void Gqa::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d, Weights& g) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  Mat da = p.scratch.mat(x.dtype, T, s.q_cols() + s.cache_cols());
  Mat dq = da.col_block(0, s.q_cols()), dk = da.col_block(s.q_cols(), s.kv_cols()),
      dv = da.col_block(s.q_cols() + s.kv_cols(), s.kv_cols());
  Mat d_o = p.scratch.mat(x.dtype, T, s.q_cols());
  linear_backward(p.exec, w.out, sv.o, d.dy, d_o, g.out, p.scratch);
  ops::attention_backward(p.exec, attention_shape(s),
                          {sv.q, sv.cache.col_block(0, s.kv_cols()), sv.cache.col_block(s.kv_cols(), s.kv_cols()),
                           p.ctx.first_key, p.ctx.segment_start, sv.o, sv.lse},
                          d_o, {dq, dk, dv});
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, dq, {0, s.heads, s.head_dim}, /*inverse=*/true);
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, dk, {0, s.kv_heads, s.head_dim}, /*inverse=*/true);
  linear_backward(p.exec, w.qkv, x, da, d.dx, g.qkv, p.scratch);
}

}  // namespace birkhoff::layers
