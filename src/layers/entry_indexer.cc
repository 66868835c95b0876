#include "layers/entry_indexer.h"

#include <algorithm>
#include <cmath>

#include "ops/rows/elementwise.h"

namespace birkhoff::layers {
namespace {

float score_scale(const EntryIndexer::Spec& s) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim * s.heads)));
}

void rotate(const Pass& p, const EntryIndexer::Spec& s, Mat q, bool inverse) {
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::interleaved, p.ctx.position, q,
                  {s.head_dim - s.rope, s.heads, s.head_dim}, inverse);
}

}  // namespace

IndexMat EntryIndexer::reserve_choice(Arena& arena, const Spec& s, int64_t tokens, int64_t entries) {
  return arena.index_mat(tokens, s.dense ? entries : std::min(s.topk, entries));
}

EntryIndexer::Saved EntryIndexer::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool cached) {
  Saved r;
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.w = arena.mat(f32_t, tokens, s.heads);
  if (cached) {
    r.compressor.kz = Compressor::reserve_rows(arena, s.compressor(), tokens);
    return r;
  }
  r.keys = arena.mat(dtype, tokens / s.ratio, s.head_dim);
  r.compressor = Compressor::reserve(arena, s.compressor(), dtype, tokens, 0);
  r.chosen = reserve_choice(arena, s, tokens, r.keys.rows);
  return r;
}

void EntryIndexer::project(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, Saved& sv) {
  linear_forward(p.exec, w.q_b, latent, sv.q);
  rotate(p, s, sv.q, false);
  linear_forward(p.exec, w.weights, x, sv.w);
  ops::scale(p.exec, score_scale(s), sv.w);
  Compressor::project(p, w.compressor, x, sv.compressor.kz);
}

void EntryIndexer::choose(const Pass& p, const Spec& s, const ops::CompressorPlan& plan, const ops::IndexerTensors& in,
                          IndexMat chosen) {
  if (chosen.cols == 0) return;  // no window is complete yet
  if (s.dense)
    ops::list_visible(p.exec, plan.first, plan.end, chosen);
  else
    ops::indexer_select(p.exec, s.shape(), in, plan.first, plan.end, chosen, p.scratch);
}

void EntryIndexer::backward(const Pass& p, const Spec& s, const Weights& w, Input in, const Saved& sv, CMat target,
                            Weights& g, IndexerLoss& kl) {
  Arena::Scope scope(p.scratch);
  const auto entries = static_cast<int64_t>(in.plan.windows.size());
  Mat dq = p.scratch.mat(in.x.dtype, in.x.rows, sv.q.cols), dw = p.scratch.mat(f32_t, in.x.rows, s.heads),
      dk = p.scratch.mat(in.x.dtype, entries, s.head_dim);
  kl.sum += ops::indexer_kl(p.exec, s.shape(), {sv.q, sv.keys.row_block(0, entries), sv.w}, sv.chosen, target, kl.scale,
                            {dq, dk, dw}, p.scratch);
  rotate(p, s, dq, true);
  linear_backward(p.exec, w.q_b, in.latent, dq, Mat{}, g.q_b, p.scratch);
  ops::scale(p.exec, score_scale(s), dw);
  linear_backward(p.exec, w.weights, in.x, dw, Mat{}, g.weights, p.scratch);
  Compressor::backward(p, s.compressor(), w.compressor, {in.plan, in.x}, sv.compressor, dk, Mat{}, g.compressor);
}

}  // namespace birkhoff::layers
