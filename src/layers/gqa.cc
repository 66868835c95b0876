#include "layers/gqa.h"

#include "ops/rows/bias.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/norm.h"

namespace birkhoff::layers {
namespace {
ops::AttentionShape attention_shape(const Gqa::Spec& s) {
  return {s.heads, s.kv_heads, s.head_dim, s.head_dim, s.scale};
}

// Columns of the product, or of its gradient.
template <class M>
struct Columns {
  M q, k, v;
  Columns(const Gqa::Spec& s, M a)
      : q(a.col_block(0, s.q_cols())),
        k(a.col_block(s.q_cols(), s.kv_cols())),
        v(a.col_block(s.q_cols() + s.kv_cols(), s.kv_cols())) {}
};
}  // namespace

Gqa::Weights::Weights(const Spec& s)
    : qkv({{"q_proj", s.q_cols()}, {"k_proj", s.kv_cols()}, {"v_proj", s.kv_cols()}}, s.dim),
      out({{"o_proj", s.dim, Role::output_projection}}, s.q_cols()) {
  const auto vector = [](int64_t n) { return Mat(nullptr, DType::f32, 1, n); };
  if (s.bias) q_bias = vector(s.q_cols()), k_bias = vector(s.kv_cols()), v_bias = vector(s.kv_cols());
  if (s.norm) q_norm = vector(s.head_dim), k_norm = vector(s.head_dim);
}

Gqa::Saved Gqa::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep) {
  Saved r;
  const bool for_backward = keep == Keep::backward;
  r.kv = arena.mat(dtype, tokens, s.cache_cols());
  r.a = arena.mat(dtype, tokens, s.q_cols() + s.cache_cols());
  r.q = s.norm && for_backward ? arena.mat(dtype, tokens, s.q_cols()) : r.a.col_block(0, s.q_cols());
  if (s.norm) r.rstd = arena.mat(f32_t, tokens, s.heads + s.kv_heads);
  r.o = arena.mat(dtype, tokens, s.q_cols());
  if (for_backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  return r;
}

namespace {
// keys [M, 2 kv_cols] of the rows [first, first + tokens) of saved.
ops::AttentionText text_of(const Pass& p, const Gqa::Spec& s, const Gqa::Saved& sv, int64_t first, int64_t tokens,
                           const ops::KeyRows& keys) {
  return {sv.q.row_block(first, tokens),
          keys.col_block(0, s.kv_cols()),
          keys.col_block(s.kv_cols(), s.kv_cols()),
          p.ctx.rows(first, tokens).first_key,
          sv.o.row_block(first, tokens),
          sv.lse.cols ? sv.lse.row_block(first, tokens) : Mat()};
}

// All parts at once where their keys can be read in place; a copy has room for those of one.
void attend_cached_heads(const Pass& p, const Gqa::Spec& s, const Gqa::Saved& sv, const Gqa::Cache& cache) {
  const bool in_place = cache.rows.holds(sv.q.dtype);
  std::vector<ops::AttentionText> texts;
  for (const CachedPart& part : p.ctx.parts) {
    cache.rows.write(p.exec, sv.kv.row_block(part.first, part.tokens), part.pages, part.past);
    Arena::Scope scope(p.scratch);
    texts.push_back(text_of(p, s, sv, part.first, part.tokens, cached_keys(p, cache.rows, part, sv.q.dtype)));
    if (in_place) continue;
    ops::attention_forward(p.exec, attention_shape(s), texts);
    texts.clear();
  }
  ops::attention_forward(p.exec, attention_shape(s), texts);
}
}  // namespace

void Gqa::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y, const Cache* cache) {
  linear_forward(p.exec, w.qkv, x, sv.a);
  const Columns<Mat> a(s, sv.a);
  if (s.bias) {
    ops::bias_forward(p.exec, w.q_bias, a.q);
    ops::bias_forward(p.exec, w.k_bias, a.k);
    ops::bias_forward(p.exec, w.v_bias, a.v);
  }
  if (s.norm) ops::rms_norm_forward(p.exec, a.q, w.q_norm, s.eps, sv.q, sv.rstd.col_block(0, s.heads));
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.q, {0, s.heads, s.head_dim});
  if (s.norm) {
    ops::rms_norm_forward(p.exec, a.k, w.k_norm, s.eps, sv.kv.col_block(0, s.kv_cols()),
                          sv.rstd.col_block(s.heads, s.kv_heads));
    ops::copy(p.exec, a.v, sv.kv.col_block(s.kv_cols(), s.kv_cols()));
  } else {
    ops::copy(p.exec, sv.a.col_block(s.q_cols(), s.cache_cols()), sv.kv);
  }
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.kv, {0, s.kv_heads, s.head_dim});
  if (cache) {
    attend_cached_heads(p, s, sv, *cache);
  } else {
    const ops::AttentionText all = text_of(p, s, sv, 0, x.rows, sv.kv);
    ops::attention_forward(p.exec, attention_shape(s), {&all, 1});
  }
  linear_forward(p.exec, w.out, sv.o, y);
}

void Gqa::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d, Weights& g) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  Mat da = p.scratch.mat(x.dtype, T, s.q_cols() + s.cache_cols());
  const Columns<Mat> d_a(s, da);
  Mat d_o = p.scratch.mat(x.dtype, T, s.q_cols());
  linear_backward(p.exec, w.out, sv.o, d.dy, d_o, g.out, p.scratch);
  ops::attention_backward(p.exec, attention_shape(s),
                          {sv.q, sv.kv.col_block(0, s.kv_cols()), sv.kv.col_block(s.kv_cols(), s.kv_cols()),
                           p.ctx.first_key, p.ctx.segment_start, sv.o, sv.lse},
                          d_o, {d_a.q, d_a.k, d_a.v});
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, d_a.q, {0, s.heads, s.head_dim}, /*inverse=*/true);
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, d_a.k, {0, s.kv_heads, s.head_dim}, /*inverse=*/true);
  if (s.norm) {
    const Columns<CMat> a(s, sv.a);
    ops::rms_norm_backward(p.exec, a.q, w.q_norm, sv.rstd.col_block(0, s.heads), d_a.q, d_a.q, g.q_norm, p.scratch);
    ops::rms_norm_backward(p.exec, a.k, w.k_norm, sv.rstd.col_block(s.heads, s.kv_heads), d_a.k, d_a.k, g.k_norm,
                           p.scratch);
  }
  if (s.bias) {
    ops::bias_backward(p.exec, d_a.q, g.q_bias, p.scratch);
    ops::bias_backward(p.exec, d_a.k, g.k_bias, p.scratch);
    ops::bias_backward(p.exec, d_a.v, g.v_bias, p.scratch);
  }
  linear_backward(p.exec, w.qkv, x, da, d.dx, g.qkv, p.scratch);
}

}  // namespace birkhoff::layers
