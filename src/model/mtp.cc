#include "model/mtp.h"

#include <algorithm>

#include "ops/rows/elementwise.h"
#include "ops/rows/embedding.h"
#include "ops/rows/norm.h"

namespace birkhoff::model {
namespace {

// One past the last row of every row's segment.
std::vector<int64_t> segment_ends(const layers::TokenContext& ctx) {
  const int64_t T = ctx.tokens();
  std::vector<int64_t> end(static_cast<size_t>(T), T);
  for (size_t s = 0; s + 1 < ctx.segment_start.size(); ++s)
    for (int64_t t = ctx.segment_start[s]; t < ctx.segment_start[s + 1]; ++t)
      end[static_cast<size_t>(t)] = ctx.segment_start[s + 1];
  return end;
}

// What module k reads and predicts. Rows past the last token of a segment read token 0 and predict nothing; no later
// row sees them.
void shift(std::span<const int32_t> ids, std::span<const int32_t> labels, const layers::TokenContext& ctx, int64_t k,
           std::vector<int32_t>& next_ids, std::vector<int32_t>& targets) {
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

namespace {

bool has_streams(const Model& m) { return m.residual.kind != ops::ResidualKind::plain; }

// [T, n*D] as [T*n, D].
template <class M>
M by_stream(const Model& m, M x) {
  return x.reshaped(x.rows * m.residual.streams, m.residual.dim);
}

// embedding, source -> state that the module's block starts from.
void join(const StackRun& r, const MtpWeights& w, CMat source, MtpTape& t) {
  const Model& m = r.m;
  const float eps = m.residual.norm_eps;
  ops::rms_norm_forward(r.exec, t.embedding, w.enorm, eps, t.e_normed, t.e_rstd);
  ops::rms_norm_forward(r.exec, by_stream(m, source), w.hnorm, eps, t.h_normed, t.h_rstd);
  if (!has_streams(m)) {
    layers::linear_forward(r.exec, w.proj, t.joined, t.stack.x[0]);
    return;
  }
  Arena::Scope scope(r.scratch);
  Mat e = r.scratch.mat(m.compute, source.rows, m.residual.dim),
      h = r.scratch.mat(m.compute, t.h_normed.rows, m.residual.dim);
  layers::linear_forward(r.exec, w.e_proj, t.e_normed, e);
  layers::linear_forward(r.exec, w.h_proj, t.h_normed, h);
  ops::expand_forward(r.exec, m.residual, e, t.stack.x[0]);
  ops::add(r.exec, h, by_stream(m, t.stack.x[0]));
}

// dx of that state -> d_embedding and d_source, assigned.
void join_backward(const StackRun& r, const MtpWeights& w, CMat source, const MtpTape& t, CMat dx, Mat d_embedding,
                   Mat d_source, MtpWeights& g) {
  const Model& m = r.m;
  const int64_t T = source.rows, D = m.residual.dim;
  Arena::Scope scope(r.scratch);
  Mat de, dh;
  if (has_streams(m)) {
    de = r.scratch.mat(m.compute, T, D);
    dh = by_stream(m, d_source);
    Mat sum = r.scratch.mat(m.compute, T, D);
    ops::expand_backward(r.exec, m.residual, dx, sum);
    layers::linear_backward(r.exec, w.e_proj, t.e_normed, sum, de, g.e_proj, r.scratch);
    layers::linear_backward(r.exec, w.h_proj, t.h_normed, by_stream(m, dx), dh, g.h_proj, r.scratch);
  } else {
    Mat d_joined = r.scratch.mat(m.compute, T, 2 * D);
    layers::linear_backward(r.exec, w.proj, t.joined, dx, d_joined, g.proj, r.scratch);
    de = d_joined.col_block(0, D);
    dh = d_joined.col_block(D, D);
  }
  ops::rms_norm_backward(r.exec, t.embedding, w.enorm, t.e_rstd, de, d_embedding, g.enorm, r.scratch);
  ops::rms_norm_backward(r.exec, by_stream(m, source), w.hnorm, t.h_rstd, dh, by_stream(m, d_source), g.hnorm,
                         r.scratch);
}

// What module k + 1 (from 0: k) reads.
CMat source_of(const Model& m, CMat source, const std::vector<MtpTape>& tapes, size_t k) {
  return k == 0 ? source : mtp_source(m, tapes[k - 1].stack, tapes[k - 1].hidden);
}

}  // namespace

CMat mtp_source(const Model& m, const StackTape& t, CMat hidden) { return has_streams(m) ? CMat(t.x.back()) : hidden; }

std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, int64_t tokens, Recompute policy) {
  const int64_t D = m.config.hidden_size, rows = tokens * m.residual.streams;
  std::vector<MtpTape> tapes(m.weights.mtp.size());
  for (size_t k = 0; k < tapes.size(); ++k) {
    MtpTape& t = tapes[k];
    reserve_stack(arena, m, {m.config.num_hidden_layers + static_cast<int64_t>(k), 1}, tokens,
                  StackTape::Keep::for_backward, policy, nullptr, t.stack);
    t.embedding = arena.mat(m.compute, tokens, D);
    if (has_streams(m)) {
      t.e_normed = arena.mat(m.compute, tokens, D);
      t.h_normed = arena.mat(m.compute, rows, D);
    } else {
      t.joined = arena.mat(m.compute, tokens, 2 * D);
      t.e_normed = t.joined.col_block(0, D);
      t.h_normed = t.joined.col_block(D, D);
    }
    t.e_rstd = arena.mat(f32_t, tokens, 1);
    t.h_rstd = arena.mat(f32_t, rows, 1);
    t.hidden = arena.mat(m.compute, tokens, D);
    t.final_rstd = arena.mat(f32_t, tokens, 1);
  }
  return tapes;
}

void forward_mtp(const StackRun& r, std::span<const int32_t> ids, std::span<const int32_t> labels, CMat source,
                 std::vector<MtpTape>& tapes) {
  const Model& m = r.m;
  for (size_t k = 0; k < tapes.size(); ++k) {
    MtpTape& t = tapes[k];
    const MtpWeights& w = m.weights.mtp[k];
    if (!r.exec.dry()) shift(ids, labels, r.ctx, static_cast<int64_t>(k) + 1, t.next_ids, t.labels);
    m.embed(r.exec, r.exec.dry() ? ids : std::span<const int32_t>(t.next_ids), t.embedding);
    join(r, w, source_of(m, source, tapes, k), t);
    forward_stack(r, w.hc_head, t.stack);
    ops::rms_norm_forward(r.exec, t.stack.h, w.norm, m.residual.norm_eps, t.hidden, t.final_rstd);
  }
}

std::vector<ops::LossSums> backward_mtp(const StackRun& r, CMat source, std::vector<MtpTape>& tapes,
                                        std::span<const float> scale, LayerLosses& losses, Mat d_source,
                                        Weights& grads) {
  const Model& m = r.m;
  const int64_t D = m.config.hidden_size, T = source.rows, wide = m.residual.streams * D;
  BK_CHECK_EQ(scale.size(), tapes.size());
  std::vector<ops::LossSums> sums(tapes.size());
  Arena::Scope whole(r.scratch);
  Mat d_h = r.scratch.mat(m.compute, T, D), dx = r.scratch.mat(m.compute, T, wide),
      d_later = r.scratch.mat(m.compute, T, wide);
  for (size_t k = tapes.size(); k-- > 0;) {
    MtpTape& t = tapes[k];
    const MtpWeights& w = m.weights.mtp[k];
    MtpWeights& g = grads.mtp[k];
    const bool followed = k + 1 < tapes.size();  // then d_later is what the next module asks of this one's output
    const std::span<const int32_t> labels = r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.labels);
    sums[k] = ops::cross_entropy_backward(r.exec, t.hidden, m.weights.head.forward, m.weights.head.backward, labels,
                                          scale[k], 0.f, d_h, grads.head.w, r.scratch);
    if (followed && !has_streams(m)) ops::add(r.exec, d_later, d_h);
    if (followed && has_streams(m)) ops::copy(r.exec, d_later, dx);
    ops::rms_norm_backward(r.exec, t.stack.h, w.norm, t.final_rstd, d_h, d_h, g.norm, r.scratch);
    backward_stack(r, w.hc_head, t.stack, {d_h, dx, followed && has_streams(m)}, losses, grads, g.hc_head);
    join_backward(r, w, source_of(m, source, tapes, k), t, dx, d_h, d_later, g);
    ops::embedding_backward(r.exec, r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.next_ids), d_h,
                            grads.embed);
  }
  if (!tapes.empty()) ops::add(r.exec, d_later, d_source);
  return sums;
}

}  // namespace birkhoff::model
