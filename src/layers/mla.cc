#include "layers/mla.h"

#include <vector>

#include "ops/attention/latent_attention.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/norm.h"

namespace birkhoff::layers {
namespace {

enum Blocks : size_t { kKeyUp, kValueUp };  // of kv_b.row_blocks: U_k as it is, U_v transposed

ops::MlaShape head_shape(const Mla::Spec& s) { return {s.heads, s.nope, s.rope, s.v}; }
}  // namespace

ops::AttentionShape Mla::expanded_shape(const Spec& s) { return {s.heads, s.heads, s.qk(), s.v, s.scale}; }
ops::AttentionShape Mla::absorbed_shape(const Spec& s) { return {s.heads, 1, s.kv_lora + s.rope, s.kv_lora, s.scale}; }

Mla::Weights::Weights(const Spec& s)
    : in({{s.q_lora ? "q_a_proj" : "q_proj", s.q_in()}, {"kv_a_proj_with_mqa", s.latent_cols()}}, s.dim),
      kv_norm(nullptr, DType::f32, 1, s.kv_lora),
      kv_b({{"kv_b_proj", s.heads * (s.nope + s.v)}}, s.kv_lora),
      out({{"o_proj", s.dim, Role::output_projection}}, s.heads * s.v) {
  if (s.q_lora) {
    q_norm = Mat(nullptr, DType::f32, 1, s.q_lora);
    q_b = Linear({{"q_b_proj", s.heads * s.qk()}}, s.q_lora);
  }
  if (s.keeps_expanded) return;
  const int64_t step = s.nope + s.v;
  kv_b.row_blocks = {{0, s.nope, step, false, {}}, {s.nope, s.v, step, true, {}}};
}

namespace {

// Columns of a cached row that have a scale of their own where rows are of 8 bits.
std::vector<int64_t> cached_groups(const Mla::Spec& s) {
  if (!s.keeps_expanded) return {s.kv_lora, s.rope};
  std::vector<int64_t> groups(static_cast<size_t>(s.heads), s.qk());
  groups.insert(groups.end(), static_cast<size_t>(s.heads), s.v);
  return groups;
}

}  // namespace

Mla::Cache::Cache(ops::PageMemory& memory, const Spec& s)
    : rows(memory, cached_groups(s), s.keeps_expanded ? ops::RowLayout::by_group : ops::RowLayout::whole) {}

Mla::Saved Mla::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep) {
  Saved r;
  r.latent = arena.mat(dtype, tokens, s.latent_cols());
  r.a = arena.mat(dtype, tokens, s.q_in() + s.latent_cols());
  if (s.q_lora) {
    r.cq = arena.mat(dtype, tokens, s.q_lora);
    r.q_rstd = arena.mat(f32_t, tokens, 1);
    r.q = arena.mat(dtype, tokens, s.heads * s.qk());
  } else {
    r.q = r.a.col_block(0, s.q_in());
  }
  r.c_rstd = arena.mat(f32_t, tokens, 1);
  if (keep != Keep::cached) {
    r.k = arena.mat(dtype, tokens, s.heads * s.qk());
    r.v = arena.mat(dtype, tokens, s.heads * s.v);
  }
  r.o = arena.mat(dtype, tokens, s.heads * s.v);
  if (keep == Keep::backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  return r;
}

void Mla::project(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv) {
  linear_forward(p.exec, w.in, x, sv.a);
  if (s.q_lora) {
    ops::rms_norm_forward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, s.inner_eps, sv.cq, sv.q_rstd);
    linear_forward(p.exec, w.q_b, sv.cq, sv.q);
  }
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.q, {s.nope, s.heads, s.qk()});

  ops::rms_norm_forward(p.exec, sv.a.col_block(s.q_in(), s.kv_lora), w.kv_norm, s.inner_eps,
                        sv.latent.col_block(0, s.kv_lora), sv.c_rstd);
  ops::copy(p.exec, sv.a.col_block(s.q_in() + s.kv_lora, s.rope), sv.latent.col_block(s.kv_lora, s.rope));
  ops::rope_apply(p.exec, p.rope, s.layout, p.ctx.position, sv.latent, {s.kv_lora, 1, s.rope});
}

void Mla::expand(const Pass& p, const Spec& s, const Weights& w, CMat latent, Mat k, Mat v) {
  Arena::Scope scope(p.scratch);
  Mat kv = p.scratch.mat(latent.dtype, latent.rows, s.heads * (s.nope + s.v));
  linear_forward(p.exec, w.kv_b, latent.col_block(0, s.kv_lora), kv);
  ops::mla_expand_kv(p.exec, head_shape(s), kv, latent.col_block(s.kv_lora, s.rope), k, v);
}

namespace {

// Parts [begin, end) that follow each other in the same form.
struct PartRun {
  size_t begin, end;
  int64_t first, tokens;
  MlaForm form;
};
std::vector<PartRun> runs_of(std::span<const CachedPart> parts) {
  std::vector<PartRun> runs;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (runs.empty() || runs.back().form != parts[i].form) runs.push_back({i, i, parts[i].first, 0, parts[i].form});
    runs.back().end = i + 1;
    runs.back().tokens += parts[i].tokens;
  }
  return runs;
}

// Keys and values of the pass's own tokens go into the cache, where those of earlier ones are.
void attend_kept(const Pass& p, const Mla::Spec& s, const Mla::Weights& w, const Mla::Cache& cache,
                 const Mla::Saved& sv, const Mla::CachedAttention& attend) {
  const int64_t k_cols = s.heads * s.qk(), v_cols = s.heads * s.v;
  {
    Arena::Scope scope(p.scratch);
    const Mat kv = p.scratch.mat(sv.latent.dtype, sv.latent.rows, s.expanded_cols());
    Mla::expand(p, s, w, sv.latent, kv.col_block(0, k_cols), kv.col_block(k_cols, v_cols));
    for (const CachedPart& part : p.ctx.parts)
      cache.rows.write(p.exec, kv.row_block(part.first, part.tokens), part.pages, part.past);
  }
  for (const CachedPart& part : p.ctx.parts) {
    BK_CHECK(part.form == MlaForm::expanded);
    Arena::Scope scope(p.scratch);
    const ops::KeyRows kv = cached_keys(p, cache.rows, part, sv.q.dtype);
    attend.expanded(part, sv.q.row_block(part.first, part.tokens), kv.col_block(0, k_cols),
                    kv.col_block(k_cols, v_cols), sv.o.row_block(part.first, part.tokens));
  }
}

void attend_expanded(const Pass& p, const Mla::Spec& s, const Mla::Weights& w, const Mla::Cache& cache,
                     const CachedPart& part, const Mla::Saved& sv, const Mla::CachedAttention& attend) {
  Arena::Scope scope(p.scratch);
  const int64_t M = part.keys();
  const DType t = sv.q.dtype;
  const Mat k = p.scratch.mat(t, M, s.heads * s.qk()), v = p.scratch.mat(t, M, s.heads * s.v);
  {
    Arena::Scope latents(p.scratch);
    const Mat latent = p.scratch.mat(t, M, s.latent_cols());
    cache.rows.read(p.exec, part.pages, latent);
    Mla::expand(p, s, w, latent, k, v);
  }
  attend.expanded(part, sv.q.row_block(part.first, part.tokens), k, v, sv.o.row_block(part.first, part.tokens));
}

// The two maps of the absorbed form are one product each for all parts of the run; between them each part attends.
void attend_absorbed(const Pass& p, const Mla::Spec& s, const Mla::Weights& w, const Mla::Cache& cache,
                     const PartRun& run, const Mla::Saved& sv, const Mla::CachedAttention& attend) {
  Arena::Scope scope(p.scratch);
  const int64_t T = run.tokens, key = s.kv_lora + s.rope;
  const Mat from = sv.q.row_block(run.first, T);
  Mat q = p.scratch.mat(from.dtype, T, s.heads * key), o = p.scratch.mat(from.dtype, T, s.heads * s.kv_lora);
  linear_row_blocks(p.exec, w.kv_b, kKeyUp, from, s.qk(), q, key);
  for (int64_t t = 0; t < T; ++t) {  // a token's heads as rows; all tokens at once where they follow each other
    const int64_t n = from.contiguous() ? T : 1;
    const Mat heads = from.row_block(t, n).reshaped(n * s.heads, s.qk()),
              to = q.row_block(t, n).reshaped(n * s.heads, key);
    ops::copy(p.exec, heads.col_block(s.nope, s.rope), to.col_block(s.kv_lora, s.rope));
    if (n == T) break;
  }
  for (size_t i = run.begin; i < run.end; ++i) {
    Arena::Scope rows(p.scratch);
    const CachedPart& part = p.ctx.parts[i];
    const bool encoded = attend.reads_encoded && !cache.rows.holds(from.dtype);
    attend.absorbed(part, q.row_block(part.first - run.first, part.tokens),
                    encoded ? cache.rows.encoded_view(part.pages, part.keys(), from.dtype)
                            : cached_keys(p, cache.rows, part, from.dtype),
                    o.row_block(part.first - run.first, part.tokens));
  }
  linear_row_blocks(p.exec, w.kv_b, kValueUp, o, s.kv_lora, sv.o.row_block(run.first, T), s.v);
}

}  // namespace

void Mla::attend_cached(const Pass& p, const Spec& s, const Weights& w, const Cache& cache, Saved& sv,
                        const CachedAttention& attend) {
  if (s.keeps_expanded) return attend_kept(p, s, w, cache, sv, attend);
  for (const CachedPart& part : p.ctx.parts)
    cache.rows.write(p.exec, sv.latent.row_block(part.first, part.tokens), part.pages, part.past);
  for (const PartRun& run : runs_of(p.ctx.parts)) {
    if (run.form == MlaForm::absorbed) {
      attend_absorbed(p, s, w, cache, run, sv, attend);
      continue;
    }
    for (size_t i = run.begin; i < run.end; ++i) attend_expanded(p, s, w, cache, p.ctx.parts[i], sv, attend);
  }
}

void Mla::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y, const Cache* cache) {
  project(p, s, w, x, sv);
  const auto first_key = [&](const CachedPart& part) { return p.ctx.rows(part.first, part.tokens).first_key; };
  if (cache) {
    attend_cached(p, s, w, *cache, sv,
                  {[&](const CachedPart& part, CMat q, const ops::KeyRows& k, const ops::KeyRows& v, Mat o) {
                     ops::attention_forward(p.exec, expanded_shape(s), q, k, v, first_key(part), o, {});
                   },
                   [&](const CachedPart& part, CMat q, const ops::KeyRows& latents, Mat o) {
                     ops::latent_attention_forward(p.exec, absorbed_shape(s), q, latents, first_key(part), o,
                                                   p.scratch);
                   },
                   /*reads_encoded=*/true});
  } else {
    expand(p, s, w, sv.latent, sv.k, sv.v);
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
  Mat da = p.scratch.mat(dt, T, s.q_in() + s.latent_cols());
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
    linear_backward(p.exec, w.kv_b, sv.latent.col_block(0, s.kv_lora), dkv, dc, g.kv_b, p.scratch);
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
