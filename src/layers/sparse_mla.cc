#include "layers/sparse_mla.h"

#include <algorithm>
#include <vector>

#include "ops/attention/sparse_attention.h"

namespace birkhoff::layers {
namespace {

ops::SparseAttentionShape sparse(const ops::AttentionShape& s) {
  return {s.heads, s.kv_heads, s.qk_dim, s.v_dim, s.scale};
}

// Consecutive tokens that all have a choice to make, or all see everything.
struct Run {
  int64_t begin, end;
  bool selects;
};
std::vector<Run> find_runs(std::span<const int32_t> first_key, int64_t keys, int64_t most) {
  std::vector<Run> runs;
  const auto T = static_cast<int64_t>(first_key.size());
  for (int64_t t = 0; t < T; ++t) {
    const bool selects = keys - T + t + 1 - first_key[static_cast<size_t>(t)] > most;
    if (runs.empty() || runs.back().selects != selects) runs.push_back({t, t, selects});
    runs.back().end = t + 1;
  }
  return runs;
}

// The last T of M keys, what they see of them, and where they stand.
struct Tokens {
  CMat q;
  ops::KeyRows k, v;
  CIndexMat keys;
  std::span<const int32_t> first_key;
  Mat o, lse;
};

// A token's own number of visible keys decides how it is computed, so that its neighbours cannot change its bits.
void attend_runs(const Pass& p, const SparseMla::Spec& s, const Tokens& at) {
  const ops::AttentionShape shape = Mla::expanded_shape(s.mla);
  const int64_t T = at.q.rows, before = at.k.rows - T;
  // A dry run does not know the documents: as if every token selected, which takes the most memory.
  const std::vector<Run> runs =
      p.exec.dry() ? std::vector<Run>{{0, T, true}} : find_runs(at.first_key, at.k.rows, at.keys.cols);
  for (const Run& r : runs) {
    const int64_t n = r.end - r.begin;
    const CMat q = at.q.row_block(r.begin, n);
    const Mat o = at.o.row_block(r.begin, n), lse = at.lse.cols ? at.lse.row_block(r.begin, n) : Mat();
    if (r.selects) {
      ops::sparse_attention_forward(p.exec, sparse(shape), {q, at.k, at.v, {at.keys.row(r.begin), n, at.keys.cols}}, o,
                                    lse, p.scratch);
    } else {
      const int64_t keys = before + r.end;
      ops::attention_forward(p.exec, shape, q, at.k.first_rows(keys), at.v.first_rows(keys),
                             at.first_key.subspan(static_cast<size_t>(r.begin), static_cast<size_t>(n)), o, lse);
    }
  }
}

// Every part of a cached pass selects among its own keys, and attends to what it selected.
void attend_parts(const Pass& p, const SparseMla::Spec& s, const SparseMla::Weights& w, const SparseMla::Cache& cache,
                  SparseMla::Saved& sv) {
  for (const CachedPart& part : p.ctx.parts)
    cache.index.write(p.exec, sv.indexer.k.row_block(part.first, part.tokens), part.pages, part.past);
  const auto select = [&](const CachedPart& part) {
    const IndexMat keys = p.scratch.index_mat(part.tokens, std::min(s.indexer.topk, part.keys()));
    Arena::Scope scope(p.scratch);
    Indexer::select(p, s.indexer,
                    {sv.indexer.q.row_block(part.first, part.tokens), cached_keys(p, cache.index, part, sv.mla.q.dtype),
                     sv.indexer.w.row_block(part.first, part.tokens)},
                    p.ctx.rows(part.first, part.tokens).first_key, keys);
    return keys;
  };
  Mla::attend_cached(p, s.mla, w.mla, cache.mla, sv.mla,
                     {[&](const CachedPart& part, CMat q, const ops::KeyRows& k, const ops::KeyRows& v, Mat o) {
                        const auto first_key = p.ctx.rows(part.first, part.tokens).first_key;
                        if (s.dense)
                          return ops::attention_forward(p.exec, Mla::expanded_shape(s.mla), q, k, v, first_key, o, {});
                        Arena::Scope scope(p.scratch);
                        attend_runs(p, s, {q, k, v, select(part), first_key, o, {}});
                      },
                      [&](const CachedPart& part, CMat q, const ops::KeyRows& latents, Mat o) {
                        BK_CHECK(!s.dense);
                        Arena::Scope scope(p.scratch);
                        ops::sparse_attention_forward(p.exec, sparse(Mla::absorbed_shape(s.mla)),
                                                      {q, latents, latents.col_block(0, s.mla.kv_lora), select(part)},
                                                      o, {}, p.scratch);
                      }});
}

// Assigns the gradients of the indexer's loss; returns the sum of KL over the tokens.
double dense_stage(const Pass& p, const SparseMla::Spec& s, const SparseMla::Saved& sv, float scale,
                   const ops::IndexerGradients& d) {
  // One sequence after another, so that lists are as wide as a sequence is long.
  const auto T = sv.mla.q.rows;
  const auto sequences = static_cast<int64_t>(p.ctx.sequence_start.size());
  BK_CHECK(sequences > 0);
  double loss = 0;
  for (int64_t i = 0; i < sequences; ++i) {
    Arena::Scope scope(p.scratch);
    const bool last = i + 1 == sequences;
    const int64_t begin = p.exec.dry() ? 0 : p.ctx.sequence_start[static_cast<size_t>(i)];
    const int64_t n = p.exec.dry() ? (T + sequences - 1) / sequences
                                   : (last ? T : p.ctx.sequence_start[static_cast<size_t>(i) + 1]) - begin;
    const IndexMat keys = p.scratch.index_mat(n, n);
    Mat target = p.scratch.mat(f32_t, n, n);
    std::vector<int32_t> first(static_cast<size_t>(n));
    for (int64_t t = 0; t < n && !p.exec.dry(); ++t)
      first[static_cast<size_t>(t)] = p.ctx.first_key[static_cast<size_t>(begin + t)] - static_cast<int32_t>(begin);
    ops::list_visible(p.exec, first, end_keys(n, n), keys);
    const auto rows = [&](CMat m) { return m.row_block(begin, n); };
    ops::attention_target(p.exec, sparse(Mla::expanded_shape(s.mla)), rows(sv.mla.q), rows(sv.mla.k), rows(sv.mla.lse),
                          keys, target, p.scratch);
    loss += ops::indexer_kl(p.exec, s.indexer.shape(), {rows(sv.indexer.q), rows(sv.indexer.k), rows(sv.indexer.w)},
                            keys, target, scale,
                            {d.dq.row_block(begin, n), d.dk.row_block(begin, n), d.dw.row_block(begin, n)}, p.scratch);
  }
  return loss;
}
double sparse_stage(const Pass& p, const SparseMla::Spec& s, const SparseMla::Saved& sv, float scale,
                    const ops::IndexerGradients& d) {
  Arena::Scope scope(p.scratch);
  Mat target = p.scratch.mat(f32_t, sv.keys.rows, sv.keys.cols);
  ops::attention_target(p.exec, sparse(Mla::expanded_shape(s.mla)), sv.mla.q, sv.mla.k, sv.mla.lse, sv.keys, target,
                        p.scratch);
  return ops::indexer_kl(p.exec, s.indexer.shape(), sv.indexer.tensors(), sv.keys, target, scale, d, p.scratch);
}

void train_indexer(const Pass& p, const SparseMla::Spec& s, const SparseMla::Weights& w, CMat x,
                   const SparseMla::Saved& sv, SparseMla::Weights& g, IndexerLoss& kl) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  const ops::IndexerGradients d{p.scratch.mat(x.dtype, T, sv.indexer.q.cols),
                                p.scratch.mat(x.dtype, T, s.indexer.head_dim),
                                p.scratch.mat(f32_t, T, s.indexer.heads)};
  kl.sum += s.dense ? dense_stage(p, s, sv, kl.scale, d) : sparse_stage(p, s, sv, kl.scale, d);
  Indexer::backward(p, s.indexer, w.indexer, x, sv.mla.cq, sv.indexer, d, g.indexer);
}

}  // namespace

SparseMla::Saved SparseMla::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep) {
  BK_CHECK(s.mla.q_lora > 0);
  Saved r;
  r.mla = Mla::reserve(arena, s.mla, dtype, tokens, keep);
  r.indexer = Indexer::reserve(arena, s.indexer, dtype, tokens);
  if (!s.dense && keep != Keep::cached) r.keys = arena.index_mat(tokens, std::min(s.indexer.topk, tokens));
  return r;
}

void SparseMla::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y, const Cache* cache) {
  Mla::project(p, s.mla, w.mla, x, sv.mla);
  Indexer::project(p, s.indexer, w.indexer, x, sv.mla.cq, sv.indexer);
  if (cache) {
    attend_parts(p, s, w, *cache, sv);
  } else {
    Mla::expand(p, s.mla, w.mla, sv.mla.latent, sv.mla.k, sv.mla.v);
    if (!s.dense && x.rows > 0) {
      Indexer::select(p, s.indexer, sv.indexer.tensors(), p.ctx.first_key, sv.keys);
      attend_runs(p, s, {sv.mla.q, sv.mla.k, sv.mla.v, sv.keys, p.ctx.first_key, sv.mla.o, sv.mla.lse});
    } else {
      ops::attention_forward(p.exec, Mla::expanded_shape(s.mla), sv.mla.q, sv.mla.k, sv.mla.v, p.ctx.first_key,
                             sv.mla.o, sv.mla.lse);
    }
  }
  linear_forward(p.exec, w.mla.out, sv.mla.o, y);
}

ops::SelectionQuality SparseMla::selection_quality(const Exec& exec, const Spec& s, const TokenContext& ctx,
                                                   const Saved& sv, Arena& scratch) {
  Arena::Scope scope(scratch);
  const ops::AttentionShape shape = Mla::expanded_shape(s.mla);
  const Mla::Saved& m = sv.mla;
  const int64_t T = m.q.rows;
  Mat o = scratch.mat(m.q.dtype, T, m.o.cols), lse = scratch.mat(f32_t, T, s.mla.heads), p = scratch.mat(f32_t, T, T);
  const IndexMat visible = scratch.index_mat(T, T);
  ops::attention_forward(exec, shape, m.q, m.k, m.v, ctx.first_key, o, lse);
  ops::list_visible(exec, ctx.first_key, end_keys(T, T), visible);
  ops::attention_target(exec, sparse(shape), m.q, m.k, lse, visible, p, scratch);
  return ops::selection_quality(exec, visible, p, sv.keys);
}

void SparseMla::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d,
                         Weights& g, IndexerLoss& kl) {
  if (kl.scale != 0 && x.rows > 0) train_indexer(p, s, w, x, sv, g, kl);
  const ops::AttentionShape shape = Mla::expanded_shape(s.mla);
  const auto selects = [&] {
    const auto runs = find_runs(p.ctx.first_key, sv.mla.k.rows, sv.keys.cols);
    return std::any_of(runs.begin(), runs.end(), [](const Run& r) { return r.selects; });
  };
  const bool lists = !s.dense && x.rows > 0 && (p.exec.dry() || selects());
  Mla::backward_around(p, s.mla, w.mla, x, sv.mla, d, g.mla, [&](CMat d_o, const ops::AttentionGradients& to) {
    const Mla::Saved& m = sv.mla;
    if (lists)
      ops::sparse_attention_backward(p.exec, sparse(shape), {{m.q, m.k, m.v, sv.keys}, m.o, m.lse}, d_o,
                                     {to.dq, to.dk, to.dv}, p.scratch);
    else
      ops::attention_backward(p.exec, shape, {m.q, m.k, m.v, p.ctx.first_key, p.ctx.segment_start, m.o, m.lse}, d_o,
                              to);
  });
}

}  // namespace birkhoff::layers
