#include "layers/entry_indexer.h"

#include <algorithm>
#include <cmath>

#include "ops/rows/elementwise.h"

namespace birkhoff::layers {
namespace {

float score_scale(const EntryIndexer::Spec& s) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim * s.heads)));
}

void rotate(const Exec& exec, const EntryIndexer::Spec& s, const ops::RopeTable& rope,
            std::span<const int32_t> position, Mat q, bool inverse) {
  ops::rope_apply(exec, rope, ops::RopeLayout::interleaved, position, q, s.head_dim - s.rope, s.heads, s.head_dim,
                  inverse);
}

}  // namespace

EntryIndexer::Saved EntryIndexer::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, int64_t cached,
                                          Mat keys) {
  Saved r;
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.w = arena.mat(f32_t, tokens, s.heads);
  r.keys = keys;
  r.compressor = Compressor::reserve(arena, s.compressor(), dtype, tokens, cached);
  r.chosen = arena.index_mat(tokens, s.dense ? keys.rows : std::min(s.topk, keys.rows));
  return r;
}

void EntryIndexer::forward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                           std::span<const int32_t> position, const ops::CompressorPlan& plan, CMat x, CMat latent,
                           Saved& sv, Compressor::Cache* cache, int64_t cached, Arena& scratch) {
  linear_forward(exec, w.q_b, latent, sv.q);
  rotate(exec, s, rope, position, sv.q, false);
  linear_forward(exec, w.weights, x, sv.w);
  ops::scale(exec, score_scale(s), sv.w);
  const auto made = static_cast<int64_t>(plan.windows.size());
  const int64_t entries = cached / s.ratio + made;
  Compressor::forward(exec, s.compressor(), w.compressor, rope, plan, x, sv.compressor,
                      sv.keys.row_block(entries - made, made), cache, cached, scratch);
  if (sv.chosen.cols == 0) return;  // no window is complete yet
  if (s.dense)
    ops::list_visible(exec, plan.first, plan.end, sv.chosen);
  else
    ops::indexer_select(exec, s.shape(), sv.q, sv.keys.row_block(0, entries), sv.w, plan.first, plan.end, sv.chosen,
                        scratch);
}

void EntryIndexer::backward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                            std::span<const int32_t> position, const ops::CompressorPlan& plan, CMat x, CMat latent,
                            const Saved& sv, CMat target, Weights& g, IndexerLoss& kl, Arena& scratch) {
  Arena::Scope scope(scratch);
  const auto entries = static_cast<int64_t>(plan.windows.size());
  Mat dq = scratch.mat(x.dtype, x.rows, sv.q.cols), dw = scratch.mat(f32_t, x.rows, s.heads),
      dk = scratch.mat(x.dtype, entries, s.head_dim);
  kl.sum += ops::indexer_kl(exec, s.shape(), sv.q, sv.keys.row_block(0, entries), sv.w, sv.chosen, target, kl.scale, dq,
                            dk, dw, scratch);
  rotate(exec, s, rope, position, dq, true);
  linear_backward(exec, w.q_b, latent, dq, Mat{}, g.q_b, scratch);
  ops::scale(exec, score_scale(s), dw);
  linear_backward(exec, w.weights, x, dw, Mat{}, g.weights, scratch);
  Compressor::backward(exec, s.compressor(), w.compressor, rope, plan, x, sv.compressor, dk, Mat{}, g.compressor,
                       scratch);
}

}  // namespace birkhoff::layers
