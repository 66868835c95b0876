#include "model/transformer.h"

#include "ops/experts/balance.h"
#include "ops/gemm/gemm.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/embedding.h"
#include "ops/rows/norm.h"

namespace birkhoff::model {

Tape reserve_tape(Arena& arena, const Model& m, int64_t tokens, Tape::Keep keep, Recompute policy) {
  Tape t;
  reserve_stack(arena, m, {0, m.config.num_hidden_layers}, tokens, keep, policy, t);
  t.hidden = arena.mat(m.compute, tokens, m.config.hidden_size);
  t.final_rstd = arena.mat(f32_t, tokens, 1);
  return t;
}

void forward(const StackRun& r, std::span<const int32_t> ids, Tape& t, const CachePool* caches) {
  const Model& m = r.m;
  const int64_t T = t.tokens;
  BK_CHECK_EQ(static_cast<int64_t>(ids.size()), T);
  BK_CHECK_EQ(r.ctx.tokens(), T);
  {
    Arena::Scope scope(r.scratch);
    Mat e = r.scratch.mat(m.compute, T, m.config.hidden_size);
    m.embed(r.exec, ids, e);
    ops::expand_forward(r.exec, m.residual, e, t.x[0]);
  }
  layers::TokenContext tokens = r.ctx;
  tokens.token_id = ids;
  forward_stack({r.exec, m, tokens, r.scratch}, m.weights.hc_head, t, caches);
  ops::rms_norm_forward(r.exec, t.h, m.weights.norm, m.residual.norm_eps, t.hidden, t.final_rstd);
  if (caches && caches->predictors() > 0) write_mtp_source(r, *caches, 0, mtp_source(m, t, t.hidden));
}

namespace {

void pool_choices(const StackTape& t, ops::BalanceLoss& loss) {
  for (const LayerTape& layer : t.layers)
    if (const auto* moe = std::get_if<layers::Moe::Saved>(&layer.ffn)) ops::pool_choices(moe->routing, loss);
}

}  // namespace

LossResult backward(const StackRun& r, std::span<const int32_t> ids, std::span<const int32_t> labels, Tape& t,
                    const LossOptions& loss, Weights& grads) {
  const Model& m = r.m;
  Arena::Scope whole(r.scratch);
  const int64_t T = t.tokens, D = m.config.hidden_size;
  LossResult result;
  Mat dx = r.scratch.mat(m.compute, T, m.residual.streams * D), d_hidden = r.scratch.mat(m.compute, T, D);
  result.sums = ops::cross_entropy_backward(r.exec, t.hidden, {m.weights.head.forward, m.weights.head.backward}, labels,
                                            loss, d_hidden, grads.head.w, r.scratch);
  LayerLosses layer_losses;
  layer_losses.balance.scale = loss.balance_scale;
  layer_losses.indexer.scale = loss.indexer_scale;
  if (!r.exec.dry()) pool_choices(t, layer_losses.balance);
  const bool streams = m.residual.kind != ops::ResidualKind::plain, from_streams = streams && !t.mtp.empty();
  if (!t.mtp.empty()) {
    if (streams) ops::zero(r.exec, dx);
    const CMat source = mtp_source(m, t, t.hidden);
    forward_mtp(r, ids, source, t.mtp);
    if (!r.exec.dry())
      for (const MtpTape& module : t.mtp) pool_choices(module.stack, layer_losses.balance);
    result.mtp = backward_mtp(r, source, t.mtp, loss.mtp_scale, layer_losses, streams ? dx : d_hidden, grads);
  }
  ops::rms_norm_backward(r.exec, t.h, m.weights.norm, t.final_rstd, d_hidden, d_hidden, grads.norm, r.scratch);
  backward_stack(r, m.weights.hc_head, t, {d_hidden, dx, from_streams}, layer_losses, grads, grads.hc_head);
  result.balance = layer_losses.balance.sum;
  result.indexer = layer_losses.indexer.sum;
  ops::expand_backward(r.exec, m.residual, dx, d_hidden);
  ops::embedding_backward(r.exec, ids, d_hidden, grads.embed);
  return result;
}

void logits(const Exec& exec, const Model& m, CMat hidden, Mat out) {
  std::vector<ByteRange> memory;
  if (m.stream_bytes) layers::add_memory(m.weights.head, false, memory);
  ops::will_need(exec, memory);
  ops::gemm(exec, hidden, m.weights.head.forward, out);
  if (m.weights.head.passing) ops::give_back(exec, memory);
}

}  // namespace birkhoff::model
