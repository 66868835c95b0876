#include "model/mtp.h"

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/norm.h"

namespace birkhoff::model {
namespace {

// One past the last row of every row's segment.
std::vector<int64_t> segment_ends(const layers::TokenContext& ctx) {
  const int64_t T = ctx.tokens();
  std::vector<int64_t> end(static_cast<size_t>(T), T);
  for (size_t s = 0; s + 1 < ctx.segment_start.size(); ++s)
    for (int64_t t = ctx.segment_start[s]; t < ctx.segment_start[s + 1]; ++t) end[static_cast<size_t>(t)] = ctx.segment_start[s + 1];
  return end;
}

// What module k reads and predicts. Rows past the last token of a segment read token 0 and predict nothing; no later row sees them.
void shift(std::span<const int32_t> ids, std::span<const int32_t> labels, const layers::TokenContext& ctx, int64_t k, std::vector<int32_t>& next_ids,
           std::vector<int32_t>& targets) {
  const std::vector<int64_t> end = segment_ends(ctx);
  next_ids.assign(end.size(), 0);
  targets.assign(end.size(), ops::kIgnoreLabel);
  for (size_t i = 0; i < end.size(); ++i) {
    const size_t at = i + static_cast<size_t>(k);
    if (static_cast<int64_t>(at) >= end[i]) continue;
    next_ids[i] = ids[at];
    targets[i] = labels[at];
  }
}

}  // namespace

int64_t mtp_targets(std::span<const int32_t> labels, const layers::TokenContext& ctx, int64_t k) {
  std::vector<int32_t> next_ids, targets;
  shift(labels, labels, ctx, k, next_ids, targets);
  return std::count_if(targets.begin(), targets.end(), [](int32_t l) { return l != ops::kIgnoreLabel; });
}

std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, int64_t tokens, Recompute policy) {
  const int64_t D = m.config.hidden_size;
  std::vector<MtpTape> tapes(m.weights.mtp.size());
  for (size_t k = 0; k < tapes.size(); ++k) {
    MtpTape& t = tapes[k];
    reserve_stack(arena, m, m.config.num_hidden_layers + static_cast<int64_t>(k), 1, tokens, StackTape::Keep::for_backward, policy, nullptr, t.stack);
    t.embedding = arena.mat(m.compute, tokens, D);
    t.joined = arena.mat(m.compute, tokens, 2 * D);
    t.e_rstd = arena.mat(f32_t, tokens, 1);
    t.h_rstd = arena.mat(f32_t, tokens, 1);
    t.hidden = arena.mat(m.compute, tokens, D);
    t.final_rstd = arena.mat(f32_t, tokens, 1);
  }
  return tapes;
}

void forward_mtp(const StackRun& r, std::span<const int32_t> ids, std::span<const int32_t> labels, CMat hidden, std::vector<MtpTape>& tapes) {
  const Model& m = r.m;
  const int64_t D = m.config.hidden_size;
  const float eps = m.residual.norm_eps;
  for (size_t k = 0; k < tapes.size(); ++k) {
    MtpTape& t = tapes[k];
    const MtpWeights& w = m.weights.mtp[k];
    if (!r.exec.dry()) shift(ids, labels, r.ctx, static_cast<int64_t>(k) + 1, t.next_ids, t.labels);
    m.embed(r.exec, r.exec.dry() ? ids : std::span<const int32_t>(t.next_ids), t.embedding);
    ops::rms_norm_forward(r.exec, t.embedding, w.enorm, eps, t.joined.col_block(0, D), t.e_rstd);
    ops::rms_norm_forward(r.exec, hidden, w.hnorm, eps, t.joined.col_block(D, D), t.h_rstd);
    layers::linear_forward(r.exec, w.proj, t.joined, t.stack.x[0]);
    forward_stack(r, {}, t.stack);
    ops::rms_norm_forward(r.exec, t.stack.h, w.norm, eps, t.hidden, t.final_rstd);
    hidden = t.hidden;
  }
}

std::vector<ops::LossSums> backward_mtp(const StackRun& r, CMat hidden, std::vector<MtpTape>& tapes, std::span<const float> scale, LayerLosses& losses,
                                        Mat d_hidden, Weights& grads) {
  const Model& m = r.m;
  const int64_t D = m.config.hidden_size, T = hidden.rows;
  BK_CHECK_EQ(scale.size(), tapes.size());
  std::vector<ops::LossSums> sums(tapes.size());
  Arena::Scope whole(r.scratch);
  Mat d_h = r.scratch.mat(m.compute, T, D), dx = r.scratch.mat(m.compute, T, D), d_later = r.scratch.mat(m.compute, T, D);
  for (size_t k = tapes.size(); k-- > 0;) {
    MtpTape& t = tapes[k];
    const MtpWeights& w = m.weights.mtp[k];
    MtpWeights& g = grads.mtp[k];
    const std::span<const int32_t> labels = r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.labels);
    sums[k] = ops::cross_entropy_backward(r.exec, t.hidden, m.weights.head.forward, m.weights.head.backward, labels, scale[k], 0.f, d_h, grads.head.w,
                                                r.scratch);
    if (k + 1 < tapes.size()) ops::add(r.exec, d_later, d_h);  // what the next module asks of this one's output
    ops::rms_norm_backward(r.exec, t.stack.h, w.norm, t.final_rstd, d_h, d_h, g.norm, r.scratch);
    ops::HeadWeights none;
    backward_stack(r, {}, t.stack, d_h, losses, dx, grads, none);
    Arena::Scope scope(r.scratch);
    Mat d_joined = r.scratch.mat(m.compute, T, 2 * D);
    layers::linear_backward(r.exec, w.proj, t.joined, dx, d_joined, g.proj, r.scratch);
    ops::rms_norm_backward(r.exec, t.embedding, w.enorm, t.e_rstd, d_joined.col_block(0, D), d_h, g.enorm, r.scratch);
    ops::embedding_backward(r.exec, r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.next_ids), d_h, grads.embed);
    ops::rms_norm_backward(r.exec, k ? CMat(tapes[k - 1].hidden) : hidden, w.hnorm, t.h_rstd, d_joined.col_block(D, D), d_later, g.hnorm, r.scratch);
  }
  if (!tapes.empty()) ops::add(r.exec, d_later, d_hidden);
  return sums;
}

}  // namespace birkhoff::model
