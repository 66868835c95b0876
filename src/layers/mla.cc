#include "layers/mla.h"

#include <numeric>
#include <span>

#include "ops/attention/latent_attention.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/norm.h"

namespace birkhoff::layers {
namespace {

enum Blocks : size_t { kKeyUp, kValueUp };  // of kv_b.row_blocks: U_k as it is, U_v transposed

void attend_latents(const Pass& p, const Mla::Spec& s, CMat q, CMat cache, Mat o) {
  Arena::Scope scope(p.scratch);
  const IndexMat rows = p.scratch.index_mat(1, cache.rows);
  if (!p.exec.dry()) std::iota(rows.row(0), rows.row(0) + cache.rows, 0);
  ops::latent_attention_forward(p.exec, Mla::absorbed_shape(s), q, cache,
                                std::span<const int32_t>(rows.row(0), static_cast<size_t>(cache.rows)), p.ctx.first_key,
                                o, p.scratch);
}

ops::MlaShape head_shape(const Mla::Spec& s) { return {s.heads, s.nope, s.rope, s.v}; }
}  // namespace

ops::AttentionShape Mla::expanded_shape(const Spec& s) { return {s.heads, s.heads, s.qk(), s.v, s.scale}; }
ops::AttentionShape Mla::absorbed_shape(const Spec& s) { return {s.heads, 1, s.kv_lora + s.rope, s.kv_lora, s.scale}; }

Mla::Weights::Weights(const Spec& s)
    : in({{s.q_lora ? "q_a_proj" : "q_proj", s.q_in()}, {"kv_a_proj_with_mqa", s.cache_cols()}}, s.dim),
      kv_norm(nullptr, DType::f32, 1, s.kv_lora),
      kv_b({{"kv_b_proj", s.heads * (s.nope + s.v)}}, s.kv_lora),
      out({{"o_proj", s.dim, Role::output_projection}}, s.heads * s.v) {
  if (s.q_lora) {
    q_norm = Mat(nullptr, DType::f32, 1, s.q_lora);
    q_b = Linear({{"q_b_proj", s.heads * s.qk()}}, s.q_lora);
  }
  const int64_t step = s.nope + s.v;
  kv_b.row_blocks = {{0, s.nope, step, false, {}}, {s.nope, s.v, step, true, {}}};
}

Mla::Saved Mla::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool for_backward, Cache* cache,
                        int64_t cached) {
  Saved r;
  r.cache = cache ? cache->rows.row_block(0, cached + tokens) : arena.mat(dtype, tokens, s.cache_cols());
  const int64_t keys = r.cache.rows;
  r.a = arena.mat(dtype, tokens, s.q_in() + s.cache_cols());
  if (s.q_lora) {
    r.cq = arena.mat(dtype, tokens, s.q_lora);
    r.q_rstd = arena.mat(f32_t, tokens, 1);
    r.q = arena.mat(dtype, tokens, s.heads * s.qk());
  } else {
    r.q = r.a.col_block(0, s.q_in());
  }
  r.c_rstd = arena.mat(f32_t, tokens, 1);
  if (!cache || cache->form == MlaForm::expanded) {
    r.k = arena.mat(dtype, keys, s.heads * s.qk());
    r.v = arena.mat(dtype, keys, s.heads * s.v);
  }
  r.o = arena.mat(dtype, tokens, s.heads * s.v);
  if (for_backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  return r;
}

void Mla::project(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv) {
  const int64_t T = x.rows, M = sv.cache.rows;
  linear_forward(p.exec, w.in, x, sv.a);
  if (s.q_lora) {
    ops::rms_norm_forward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, s.inner_eps, sv.cq, sv.q_rstd);
    linear_forward(p.exec, w.q_b, sv.cq, sv.q);
  }
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.q, {s.nope, s.heads, s.qk()});

  // The cache holds what later tokens need of this one: the normalised latent and the rotated shared key.
  const Mat fresh = sv.cache.row_block(M - T, T);
  ops::rms_norm_forward(p.exec, sv.a.col_block(s.q_in(), s.kv_lora), w.kv_norm, s.inner_eps,
                        fresh.col_block(0, s.kv_lora), sv.c_rstd);
  ops::copy(p.exec, sv.a.col_block(s.q_in() + s.kv_lora, s.rope), fresh.col_block(s.kv_lora, s.rope));
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, fresh, {s.kv_lora, 1, s.rope});
}

void Mla::expand(const Pass& p, const Spec& s, const Weights& w, Saved& sv) {
  Arena::Scope scope(p.scratch);
  Mat kv = p.scratch.mat(sv.cache.dtype, sv.cache.rows, s.heads * (s.nope + s.v));
  linear_forward(p.exec, w.kv_b, sv.cache.col_block(0, s.kv_lora), kv);
  ops::mla_expand_kv(p.exec, head_shape(s), kv, sv.cache.col_block(s.kv_lora, s.rope), sv.k, sv.v);
}

void Mla::absorb(const Pass& p, const Spec& s, const Weights& w, Saved& sv,
                 const std::function<void(CMat q, Mat o)>& attend) {
  Arena::Scope scope(p.scratch);
  const int64_t T = sv.q.rows, key = s.kv_lora + s.rope;
  Mat q = p.scratch.mat(sv.q.dtype, T, s.heads * key), o = p.scratch.mat(sv.q.dtype, T, s.heads * s.kv_lora);
  linear_row_blocks(p.exec, w.kv_b, kKeyUp, sv.q, s.qk(), q, key);
  for (int64_t t = 0; t < T; ++t) {  // a token's heads as rows; all tokens at once where they follow each other
    const int64_t n = sv.q.contiguous() ? T : 1;
    const Mat from = sv.q.row_block(t, n).reshaped(n * s.heads, s.qk()),
              to = q.row_block(t, n).reshaped(n * s.heads, key);
    ops::copy(p.exec, from.col_block(s.nope, s.rope), to.col_block(s.kv_lora, s.rope));
    if (n == T) break;
  }
  attend(q, o);
  linear_row_blocks(p.exec, w.kv_b, kValueUp, o, s.kv_lora, sv.o, s.v);
}

void Mla::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y) {
  project(p, s, w, x, sv);
  if (sv.absorbed()) {
    absorb(p, s, w, sv, [&](CMat q, Mat o) { attend_latents(p, s, q, sv.cache, o); });
  } else {
    expand(p, s, w, sv);
    ops::attention_forward(p.exec, expanded_shape(s), sv.q, sv.k, sv.v, p.ctx.first_key, sv.o, sv.lse);
  }
  linear_forward(p.exec, w.out, sv.o, y);
}

void Mla::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d, Weights& g) {
  backward_around(p, s, w, x, sv, d, g, [&](CMat d_o, const ops::AttentionGradients& to) {
    ops::attention_backward(p.exec, expanded_shape(s),
                            {sv.q, sv.k, sv.v, p.ctx.first_key, p.ctx.segment_start, sv.o, sv.lse}, d_o, to);
  });
}

void Mla::backward_around(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d,
                          Weights& g, const AttentionGradient& attend) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  const DType dt = x.dtype;
  Mat da = p.scratch.mat(dt, T, s.q_in() + s.cache_cols());
  Mat dq = s.q_lora ? p.scratch.mat(dt, T, s.heads * s.qk()) : da.col_block(0, s.q_in());
  Mat dk_rope = da.col_block(s.q_in() + s.kv_lora, s.rope);
  {
    Arena::Scope inner(p.scratch);
    Mat dkv = p.scratch.mat(dt, T, s.heads * (s.nope + s.v));
    {
      Arena::Scope heads(p.scratch);
      Mat d_o = p.scratch.mat(dt, T, s.heads * s.v);
      linear_backward(p.exec, w.out, sv.o, d.dy, d_o, g.out, p.scratch);
      Mat dk = p.scratch.mat(dt, T, s.heads * s.qk()), dv = p.scratch.mat(dt, T, s.heads * s.v);
      attend(d_o, {dq, dk, dv});
      ops::mla_expand_kv_backward(p.exec, head_shape(s), dk, dv, dkv, dk_rope);
    }
    Mat dc = p.scratch.mat(dt, T, s.kv_lora);
    linear_backward(p.exec, w.kv_b, sv.cache.col_block(0, s.kv_lora), dkv, dc, g.kv_b, p.scratch);
    ops::rms_norm_backward(p.exec, sv.a.col_block(s.q_in(), s.kv_lora), w.kv_norm, sv.c_rstd, dc,
                           da.col_block(s.q_in(), s.kv_lora), g.kv_norm, p.scratch);
  }
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, da, {s.q_in() + s.kv_lora, 1, s.rope}, /*inverse=*/true);
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, dq, {s.nope, s.heads, s.qk()}, /*inverse=*/true);
  if (s.q_lora) {
    Arena::Scope inner(p.scratch);
    Mat dcq = p.scratch.mat(dt, T, s.q_lora);
    linear_backward(p.exec, w.q_b, sv.cq, dq, dcq, g.q_b, p.scratch);
    ops::rms_norm_backward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, sv.q_rstd, dcq, da.col_block(0, s.q_lora),
                           g.q_norm, p.scratch);
  }
  linear_backward(p.exec, w.in, x, da, d.dx, g.in, p.scratch);
}

}  // namespace birkhoff::layers
