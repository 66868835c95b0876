#include "layers/indexer.h"

#include <cmath>
#include <numeric>

#include "ops/rows/elementwise.h"
#include "ops/rows/layer_norm.h"

namespace birkhoff::layers {
namespace {

// The constants of the score, folded into its weights: they are positive, so ReLU does not mind.
float score_scale(const Indexer::Spec& s) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.heads * s.head_dim)));
}

}  // namespace

std::vector<int32_t> end_keys(int64_t tokens, int64_t keys) {
  std::vector<int32_t> end(static_cast<size_t>(tokens));
  std::iota(end.begin(), end.end(), static_cast<int32_t>(keys - tokens + 1));
  return end;
}

Indexer::Weights::Weights(const Spec& s)
    : wq_b({{"wq_b", s.heads * s.head_dim}}, s.q_lora),
      wk({{"wk", s.head_dim}}, s.dim),
      k_norm(nullptr, DType::f32, 1, s.head_dim),
      k_bias(nullptr, DType::f32, 1, s.head_dim),
      weights_proj({{"weights_proj", s.heads}}, s.dim, /*fp32=*/true) {}

Indexer::Saved Indexer::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens) {
  Saved r;
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.k_raw = arena.mat(dtype, tokens, s.head_dim);
  r.k_stats = arena.mat(f32_t, tokens, 2);
  r.w = arena.mat(f32_t, tokens, s.heads);
  r.k = arena.mat(dtype, tokens, s.head_dim);
  return r;
}

void Indexer::project(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, Saved& sv) {
  linear_forward(p.exec, w.wq_b, latent, sv.q);
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::half_split, p.ctx.position, sv.q, {0, s.heads, s.head_dim});
  linear_forward(p.exec, w.wk, x, sv.k_raw);
  ops::layer_norm_forward(p.exec, sv.k_raw, w.k_norm, w.k_bias, s.norm_eps, sv.k, sv.k_stats);
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::half_split, p.ctx.position, sv.k, {0, 1, s.head_dim});
  linear_forward(p.exec, w.weights_proj, x, sv.w);
  ops::scale(p.exec, score_scale(s), sv.w);
}

void Indexer::select(const Pass& p, const Spec& s, const ops::IndexerTensors& in, std::span<const int32_t> first_key,
                     IndexMat keys) {
  ops::indexer_select(p.exec, s.shape(), in, first_key, end_keys(in.q.rows, in.k.rows), keys, p.scratch);
}

void Indexer::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, const Saved& sv,
                       const ops::IndexerGradients& d, Weights& g) {
  ops::scale(p.exec, score_scale(s), d.dw);
  linear_backward(p.exec, w.weights_proj, x, d.dw, {}, g.weights_proj, p.scratch);
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::half_split, p.ctx.position, d.dq, {0, s.heads, s.head_dim},
                  /*inverse=*/true);
  linear_backward(p.exec, w.wq_b, latent, d.dq, {}, g.wq_b, p.scratch);
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::half_split, p.ctx.position, d.dk, {0, 1, s.head_dim},
                  /*inverse=*/true);
  ops::layer_norm_backward(p.exec, sv.k_raw, w.k_norm, sv.k_stats, d.dk, {d.dk, g.k_norm, g.k_bias}, p.scratch);
  linear_backward(p.exec, w.wk, x, d.dk, {}, g.wk, p.scratch);
}

}  // namespace birkhoff::layers
