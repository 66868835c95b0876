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
    : wq_b(s.heads * s.head_dim, s.q_lora),
      wk(s.head_dim, s.dim),
      k_norm(nullptr, DType::f32, 1, s.head_dim),
      k_bias(nullptr, DType::f32, 1, s.head_dim),
      weights_proj(s.heads, s.dim) {}

Indexer::Saved Indexer::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Mat k) {
  Saved r;
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.k_raw = arena.mat(dtype, tokens, s.head_dim);
  r.k_stats = arena.mat(f32_t, tokens, 2);
  r.w = arena.mat(f32_t, tokens, s.heads);
  r.k = k;
  return r;
}

void Indexer::project(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                      const TokenContext& ctx, CMat x, CMat latent, Saved& sv) {
  const int64_t T = x.rows;
  linear_forward(exec, w.wq_b, latent, sv.q);
  ops::rope_apply(exec, rope, ops::RopeLayout::half_split, ctx.position, sv.q, 0, s.heads, s.head_dim);
  const Mat k = sv.k.row_block(sv.k.rows - T, T);
  linear_forward(exec, w.wk, x, sv.k_raw);
  ops::layer_norm_forward(exec, sv.k_raw, w.k_norm, w.k_bias, s.norm_eps, k, sv.k_stats);
  ops::rope_apply(exec, rope, ops::RopeLayout::half_split, ctx.position, k, 0, 1, s.head_dim);
  linear_forward(exec, w.weights_proj, x, sv.w);
  ops::scale(exec, score_scale(s), sv.w);
}

void Indexer::select(const Exec& exec, const Spec& s, const TokenContext& ctx, const Saved& sv, IndexMat keys,
                     Arena& scratch) {
  ops::indexer_select(exec, s.shape(), sv.q, sv.k, sv.w, ctx.first_key, end_keys(sv.q.rows, sv.k.rows), keys, scratch);
}

void Indexer::backward(const Exec& exec, const Spec& s, const ops::RopeTable& rope, const TokenContext& ctx, CMat x,
                       CMat latent, const Weights& w, const Saved& sv, Mat dq, Mat dk, Mat dw, Weights& g,
                       Arena& scratch) {
  ops::scale(exec, score_scale(s), dw);
  linear_backward(exec, w.weights_proj, x, dw, {}, g.weights_proj, scratch);
  ops::rope_apply(exec, rope, ops::RopeLayout::half_split, ctx.position, dq, 0, s.heads, s.head_dim, /*inverse=*/true);
  linear_backward(exec, w.wq_b, latent, dq, {}, g.wq_b, scratch);
  ops::rope_apply(exec, rope, ops::RopeLayout::half_split, ctx.position, dk, 0, 1, s.head_dim, /*inverse=*/true);
  ops::layer_norm_backward(exec, sv.k_raw, w.k_norm, sv.k_stats, dk, dk, g.k_norm, g.k_bias, scratch);
  linear_backward(exec, w.wk, x, dk, {}, g.wk, scratch);
}

}  // namespace birkhoff::layers
