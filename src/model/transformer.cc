#include "model/transformer.h"

#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/norm.h"

namespace birkhoff::model {
namespace {

using layers::TokenContext;

// Where the sub-layer of site s keeps what its backward needs (or, without one, works).
void reserve_site(Arena& arena, const Model& m, int64_t s, int64_t tokens, bool for_backward, Mat cache, LayerTape& t) {
  if (s % 2 == 0) {
    if (m.config.uses_mla())
      t.attn = layers::Mla::reserve(arena, m.mla, m.compute, tokens, for_backward, cache);
    else
      t.attn = layers::Gqa::reserve(arena, m.gqa, m.compute, tokens, for_backward, cache);
  } else if (auto* moe = std::get_if<layers::Moe::Saved>(&t.ffn)) {
    layers::Moe::reserve_activations(arena, m.moe, m.compute, tokens, *moe);
  } else {
    t.ffn = layers::DenseFfn::reserve(arena, m.config.intermediate_size, m.compute, tokens);
  }
}

// What runs at a site, spelled once for forward and recomputation.
struct SiteRunner {
  const Exec& exec;
  const Model& m;
  const TokenContext& ctx;
  Arena& scratch;

  // y = F_s(in). Routing happens once; a recomputation uses what was chosen then.
  void run(int64_t s, CMat in, LayerTape& t, Mat y, bool recomputing) const {
    const BlockWeights& b = m.weights.blocks[static_cast<size_t>(s / 2)];
    if (s % 2 == 0) {
      if (auto* w = std::get_if<layers::Mla::Weights>(&b.attn))
        layers::Mla::forward(exec, m.mla, *w, m.rope, ctx, in, std::get<layers::Mla::Saved>(t.attn), y, scratch);
      else
        layers::Gqa::forward(exec, m.gqa, std::get<layers::Gqa::Weights>(b.attn), m.rope, ctx, in, std::get<layers::Gqa::Saved>(t.attn), y, scratch);
    } else if (auto* w = std::get_if<layers::Moe::Weights>(&b.ffn)) {
      auto& saved = std::get<layers::Moe::Saved>(t.ffn);
      if (!recomputing) layers::Moe::route(exec, m.moe, *w, in, saved);
      layers::Moe::forward(exec, m.moe, *w, in, saved, y, scratch);
    } else {
      layers::DenseFfn::forward(exec, std::get<layers::DenseFfn::Weights>(b.ffn), in, std::get<layers::DenseFfn::Saved>(t.ffn), y, scratch);
    }
  }

  void run_backward(int64_t s, CMat in, const LayerTape& t, CMat dy, float loss_scale, Mat d_in, Weights& grads, double& balance) const {
    const BlockWeights& b = m.weights.blocks[static_cast<size_t>(s / 2)];
    BlockWeights& g = grads.blocks[static_cast<size_t>(s / 2)];
    if (s % 2 == 0) {
      if (auto* w = std::get_if<layers::Mla::Weights>(&b.attn))
        layers::Mla::backward(exec, m.mla, *w, m.rope, ctx, in, std::get<layers::Mla::Saved>(t.attn), dy, d_in, std::get<layers::Mla::Weights>(g.attn),
                              scratch);
      else
        layers::Gqa::backward(exec, m.gqa, std::get<layers::Gqa::Weights>(b.attn), m.rope, ctx, in, std::get<layers::Gqa::Saved>(t.attn), dy, d_in,
                              std::get<layers::Gqa::Weights>(g.attn), scratch);
    } else if (auto* w = std::get_if<layers::Moe::Weights>(&b.ffn)) {
      layers::Moe::backward(exec, m.moe, *w, ctx, in, std::get<layers::Moe::Saved>(t.ffn), dy, loss_scale, d_in, std::get<layers::Moe::Weights>(g.ffn),
                            balance, scratch);
    } else {
      layers::DenseFfn::backward(exec, std::get<layers::DenseFfn::Weights>(b.ffn), in, std::get<layers::DenseFfn::Saved>(t.ffn), dy, d_in,
                                 std::get<layers::DenseFfn::Weights>(g.ffn), scratch);
    }
  }
};

ops::SiteWeights& site_of(Weights& w, int64_t s) {
  BlockWeights& b = w.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

Mat cache_rows(KvCache* cache, int64_t layer, int64_t tokens) {
  return cache ? cache->layers[static_cast<size_t>(layer)].row_block(0, cache->length + tokens) : Mat{};
}

// The part of layer `l` that its policy left out, rebuilt into scratch: inputs, outputs and what the sub-layers save.
struct LayerActivations {
  Mat x_mid, in[2], y[2];
  LayerTape tape;
};

LayerActivations rebuild_layer(const SiteRunner& r, const Tape& t, int64_t l) {
  const Model& m = r.m;
  const int64_t T = t.tokens, a = 2 * l;
  LayerActivations v;
  v.tape = t.layers[static_cast<size_t>(l)];
  const auto index = [](int64_t s) { return static_cast<size_t>(s); };
  if (t.policy == Recompute::none) {
    for (int64_t i : {0, 1}) v.in[i] = t.in[index(a + i)], v.y[i] = t.y[index(a + i)];
    v.x_mid = t.x[index(a + 1)];
    return v;
  }
  if (t.policy == Recompute::site) {
    for (int64_t i : {0, 1}) v.in[i] = t.in[index(a + i)], v.y[i] = t.y[index(a + i)];
    v.x_mid = t.x[index(a + 1)];
    for (int64_t i : {0, 1}) {
      reserve_site(r.scratch, m, a + i, T, true, {}, v.tape);
      Arena::Scope scope(r.scratch);
      r.run(a + i, v.in[i], v.tape, r.scratch.mat(m.compute, T, m.config.hidden_size), true);
    }
    return v;
  }
  ops::SiteSaved replayed = t.site[index(a)];  // the same bits are written again
  v.x_mid = r.scratch.mat(m.compute, T, m.residual.streams * m.residual.dim);
  for (int64_t i : {0, 1}) {
    v.in[i] = r.scratch.mat(m.compute, T, m.config.hidden_size);
    v.y[i] = r.scratch.mat(m.compute, T, m.config.hidden_size);
    reserve_site(r.scratch, m, a + i, T, true, {}, v.tape);
  }
  ops::site_open(r.exec, m.residual, m.site(a), t.x[index(a)], replayed, v.in[0], r.scratch);
  r.run(a, v.in[0], v.tape, v.y[0], true);
  replayed = t.site[index(a + 1)];
  ops::site_advance(r.exec, m.residual, m.site(a), t.site[index(a)], t.x[index(a)], v.y[0], v.x_mid, m.site(a + 1), replayed, v.in[1], r.scratch);
  r.run(a + 1, v.in[1], v.tape, v.y[1], true);
  return v;
}

}  // namespace

KvCache KvCache::take(Arena& arena, const Model& m, int64_t capacity) {
  KvCache c;
  c.capacity = capacity;
  for (int64_t l = 0; l < m.config.num_hidden_layers; ++l) c.layers.push_back(arena.mat(m.compute, capacity, m.config.cache_cols()));
  return c;
}

Tape reserve_tape(Arena& arena, const Model& m, int64_t tokens, Tape::Keep keep, Recompute policy, KvCache* cache) {
  Tape t;
  t.keep = keep;
  t.policy = policy;
  t.tokens = tokens;
  const int64_t S = m.sites(), D = m.config.hidden_size, wide = m.residual.streams * D;
  const bool backward = keep == Tape::Keep::for_backward;
  auto make = [&](int64_t cols) { return arena.mat(m.compute, tokens, cols); };
  Mat shared_x, shared_in, shared_y;
  if (!backward) shared_x = make(wide);
  if (backward && policy == Recompute::layer) shared_x = make(wide);
  if (!backward || policy == Recompute::layer) shared_in = make(D), shared_y = make(D);
  for (int64_t s = 0; s <= S; ++s) {
    const bool keep_x = backward && (policy != Recompute::layer || s % 2 == 0);
    t.x.push_back(keep_x ? make(wide) : shared_x);
    if (s == S) break;
    const bool keep_in = backward && policy != Recompute::layer;
    t.in.push_back(keep_in ? make(D) : shared_in);
    t.y.push_back(keep_in ? make(D) : shared_y);
    t.site.push_back(ops::SiteSaved::take(arena, m.residual, tokens));
  }
  t.layers.resize(static_cast<size_t>(m.config.num_hidden_layers));
  for (int64_t l = 0; l < m.config.num_hidden_layers; ++l) {
    LayerTape& lt = t.layers[static_cast<size_t>(l)];
    if (m.config.is_moe_layer(l)) {
      layers::Moe::Saved moe;
      layers::Moe::reserve_routing(arena, m.moe, tokens, moe);
      lt.ffn = moe;
    }
    if (backward && policy == Recompute::none) {
      reserve_site(arena, m, 2 * l, tokens, true, cache_rows(cache, l, tokens), lt);
      reserve_site(arena, m, 2 * l + 1, tokens, true, {}, lt);
    }
  }
  if (m.residual.kind != ops::ResidualKind::plain) t.head = ops::HeadSaved::take(arena, m.residual, tokens);
  t.h = m.residual.kind == ops::ResidualKind::plain ? t.x.back() : make(D);
  t.hidden = make(D);
  t.final_rstd = arena.mat(f32_t, tokens, 1);
  return t;
}

void forward(const Exec& exec, const Model& m, std::span<const int32_t> ids, const TokenContext& ctx, Tape& t, Arena& scratch, KvCache* cache) {
  const int64_t T = t.tokens, S = m.sites();
  BK_CHECK_EQ(static_cast<int64_t>(ids.size()), T);
  BK_CHECK_EQ(ctx.tokens(), T);
  if (cache) BK_CHECK_LE(cache->length + T, cache->capacity);
  const SiteRunner r{exec, m, ctx, scratch};
  {
    Arena::Scope scope(scratch);
    Mat e = scratch.mat(m.compute, T, m.config.hidden_size);
    ops::embedding_forward(exec, m.weights.embed, ids, e);
    ops::expand_forward(exec, m.residual, e, t.x[0]);
  }
  ops::site_open(exec, m.residual, m.site(0), t.x[0], t.site[0], t.in[0], scratch);
  const bool stored = t.keep == Tape::Keep::for_backward && t.policy == Recompute::none;
  for (int64_t s = 0; s < S; ++s) {
    const auto i = static_cast<size_t>(s);
    {
      Arena::Scope scope(scratch);
      LayerTape& kept = t.layers[i / 2];
      LayerTape working = kept;  // without storage of its own the site works in scratch
      if (!stored) reserve_site(scratch, m, s, T, false, s % 2 == 0 ? cache_rows(cache, s / 2, T) : Mat{}, working);
      r.run(s, t.in[i], stored ? kept : working, t.y[i], false);
    }
    if (s + 1 < S)
      ops::site_advance(exec, m.residual, m.site(s), t.site[i], t.x[i], t.y[i], t.x[i + 1], m.site(s + 1), t.site[i + 1], t.in[i + 1], scratch);
    else
      ops::site_close(exec, m.residual, m.site(s), t.site[i], t.x[i], t.y[i], t.x[i + 1], m.weights.hc_head, t.head, t.h, scratch);
  }
  ops::rms_norm_forward(exec, t.h, m.weights.norm, m.residual.norm_eps, t.hidden, t.final_rstd);
  if (cache) cache->length += T;
}

LossResult backward(const Exec& exec, const Model& m, std::span<const int32_t> ids, std::span<const int32_t> labels, const TokenContext& ctx,
                    Tape& t, const LossOptions& loss, Weights& grads, Arena& scratch) {
  BK_CHECK(t.keep == Tape::Keep::for_backward);
  Arena::Scope whole(scratch);
  const int64_t T = t.tokens, S = m.sites(), D = m.config.hidden_size;
  const SiteRunner r{exec, m, ctx, scratch};
  LossResult result;
  Mat dx = scratch.mat(m.compute, T, m.residual.streams * D), dy = scratch.mat(m.compute, T, D), d_in = scratch.mat(m.compute, T, D);
  {
    Arena::Scope scope(scratch);
    Mat d_hidden = scratch.mat(m.compute, T, D);
    result.sums = ops::cross_entropy_backward(exec, t.hidden, m.weights.head.forward, m.weights.head.backward, labels, loss.scale, loss.z_coef,
                                              d_hidden, grads.head.w, scratch);
    ops::rms_norm_backward(exec, t.h, m.weights.norm, t.final_rstd, d_hidden, d_hidden, grads.norm, scratch);
    ops::site_close_backward(exec, m.residual, m.weights.hc_head, t.head, t.x.back(), d_hidden, grads.hc_head, m.site(S - 1), t.site.back(), dx, dy,
                             scratch);
  }
  for (int64_t l = m.config.num_hidden_layers - 1; l >= 0; --l) {
    Arena::Scope scope(scratch);
    const LayerActivations v = rebuild_layer(r, t, l);
    for (int64_t i : {1, 0}) {
      const int64_t s = 2 * l + i;
      r.run_backward(s, v.in[i], v.tape, dy, loss.balance_scale, d_in, grads, result.balance);
      const CMat x = i == 0 ? t.x[static_cast<size_t>(s)] : v.x_mid;
      const ops::SiteWeights* before = s > 0 ? &m.site(s - 1) : nullptr;
      const ops::SiteSaved* before_saved = s > 0 ? &t.site[static_cast<size_t>(s - 1)] : nullptr;
      ops::site_retreat(exec, m.residual, m.site(s), t.site[static_cast<size_t>(s)], x, v.y[i], d_in, dx, dx, site_of(grads, s), before, before_saved,
                        dy, scratch);
    }
  }
  ops::expand_backward(exec, m.residual, dx, d_in);
  ops::embedding_backward(exec, ids, d_in, grads.embed);
  return result;
}

void logits(const Exec& exec, const Model& m, CMat hidden, Mat out) { ops::gemm(exec, hidden, m.weights.head.forward, out); }

}  // namespace birkhoff::model
