#include "model/stack.h"

#include "ops/residual/residual_backward.h"

namespace birkhoff::model {
namespace {

using layers::TokenContext;

// A stack's site s is sub-layer s % 2 of block first_block + s / 2.
struct SiteOf {
  int64_t block;
  bool attention;
};
SiteOf site_of(const StackTape& t, int64_t s) { return {t.first_block + s / 2, s % 2 == 0}; }

const BlockSpec& spec_of(const Model& m, int64_t block) { return m.blocks[static_cast<size_t>(block)]; }
const BlockWeights& weights_of(const Model& m, int64_t block) { return m.weights.blocks[static_cast<size_t>(block)]; }

const ops::SiteWeights& residual_of(const Model& m, SiteOf s) {
  const BlockWeights& b = weights_of(m, s.block);
  return s.attention ? b.attn_site : b.ffn_site;
}
ops::SiteWeights& residual_of(Weights& w, SiteOf s) {
  BlockWeights& b = w.blocks[static_cast<size_t>(s.block)];
  return s.attention ? b.attn_site : b.ffn_site;
}

// Where the sub-layer of a site keeps what its backward needs (or, without one, works).
void reserve_site(Arena& arena, const Model& m, SiteOf s, int64_t tokens, layers::Keep keep, LayerTape& t) {
  const BlockSpec& spec = spec_of(m, s.block);
  if (s.attention) {
    std::visit(
        [&](const auto& attn) {
          t.attn = LayerOf<std::decay_t<decltype(attn)>>::reserve(arena, attn, m.compute, tokens, keep);
        },
        spec.attn);
  } else if (const auto* moe = std::get_if<layers::Moe::Spec>(&spec.ffn)) {
    layers::Moe::reserve_activations(arena, *moe, m.compute, tokens, std::get<layers::Moe::Saved>(t.ffn));
  } else {
    t.ffn = layers::DenseFfn::reserve(arena, std::get<layers::DenseFfn::Spec>(spec.ffn), m.compute, tokens);
  }
}

// What every token of the site reads; of experts nobody knows yet which. passing: what does not stay of it.
std::vector<ByteRange> memory_of_site(const StackRun& r, SiteOf s, bool passing) {
  const BlockWeights& b = weights_of(r.m, s.block);
  std::vector<ByteRange> memory;
  const auto all_of = [&](const auto& weights) {
    layers::for_each_linear(weights, "", [&](const std::string&, const layers::Linear& l) {
      if (passing && !l.passing) return;
      if (r.ctx.any_form(layers::MlaForm::expanded)) layers::add_memory(l, false, memory);
      if (r.ctx.any_form(layers::MlaForm::absorbed)) layers::add_memory(l, true, memory);
    });
  };
  if (s.attention) {
    std::visit(all_of, b.attn);
  } else if (const auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn)) {
    if (!passing) layers::add_memory(moe->router, false, memory);  // small
    if (moe->shared.inter()) all_of(moe->shared);
  } else {
    all_of(std::get<layers::DenseFfn::Weights>(b.ffn));
  }
  return memory;
}

// y = F_s(in). Routing happens once; a recomputation uses what was chosen then.
void run_site(const StackRun& r, SiteOf s, CMat in, LayerTape& t, Mat y, bool recomputing,
              const CachePool* caches = nullptr) {
  const layers::Pass pass = r.layer(s.block);
  const BlockSpec& spec = spec_of(r.m, s.block);
  const BlockWeights& b = weights_of(r.m, s.block);
  if (s.attention) {
    std::visit(
        [&](const auto& attn) {
          using Layer = LayerOf<std::decay_t<decltype(attn)>>;
          Layer::forward(pass, attn, std::get<typename Layer::Weights>(b.attn), in,
                         std::get<typename Layer::Saved>(t.attn), y,
                         caches ? &std::get<typename Layer::Cache>(caches->layer(s.block)) : nullptr);
        },
        spec.attn);
    return;
  }
  std::visit(
      [&](const auto& ffn) {
        using Layer = LayerOf<std::decay_t<decltype(ffn)>>;
        const auto& w = std::get<typename Layer::Weights>(b.ffn);
        auto& saved = std::get<typename Layer::Saved>(t.ffn);
        if constexpr (std::is_same_v<Layer, layers::Moe>)
          if (!recomputing) Layer::route(pass, ffn, w, in, saved);
        Layer::forward(pass, ffn, w, in, saved, y);
      },
      spec.ffn);
}

template <class Layer>
constexpr bool kHasIndexer =
    std::is_same_v<Layer, layers::SparseMla> || std::is_same_v<Layer, layers::CompressedAttention>;

void run_site_backward(const StackRun& r, SiteOf s, CMat in, const LayerTape& t, layers::Cotangents d,
                       LayerLosses& losses, Weights& grads) {
  const BlockSpec& spec = spec_of(r.m, s.block);
  const layers::Pass pass = r.layer(s.block);
  const BlockWeights& b = weights_of(r.m, s.block);
  BlockWeights& g = grads.blocks[static_cast<size_t>(s.block)];
  if (s.attention) {
    std::visit(
        [&](const auto& attn) {
          using Layer = LayerOf<std::decay_t<decltype(attn)>>;
          const auto& w = std::get<typename Layer::Weights>(b.attn);
          auto& dw = std::get<typename Layer::Weights>(g.attn);
          const auto& saved = std::get<typename Layer::Saved>(t.attn);
          if constexpr (kHasIndexer<Layer>)
            Layer::backward(pass, attn, w, in, saved, d, dw, losses.indexer);
          else
            Layer::backward(pass, attn, w, in, saved, d, dw);
        },
        spec.attn);
    return;
  }
  std::visit(
      [&](const auto& ffn) {
        using Layer = LayerOf<std::decay_t<decltype(ffn)>>;
        const auto& w = std::get<typename Layer::Weights>(b.ffn);
        auto& dw = std::get<typename Layer::Weights>(g.ffn);
        const auto& saved = std::get<typename Layer::Saved>(t.ffn);
        if constexpr (std::is_same_v<Layer, layers::Moe>)
          Layer::backward(pass, ffn, w, in, saved, d, dw, losses.balance);
        else
          Layer::backward(pass, ffn, w, in, saved, d, dw);
      },
      spec.ffn);
}

// The part of layer `l` that its policy left out, rebuilt into scratch: inputs, outputs and what the sub-layers save.
struct LayerActivations {
  Mat x_mid, in[2], y[2];
  LayerTape tape;
};

LayerActivations rebuild_layer(const StackRun& r, const StackTape& t, int64_t l) {
  const Model& m = r.m;
  const int64_t T = t.tokens, a = 2 * l;
  LayerActivations v;
  v.tape = t.layers[static_cast<size_t>(l)];
  const auto index = [](int64_t s) { return static_cast<size_t>(s); };
  if (t.policy != Recompute::layer) {
    for (int64_t i : {0, 1}) v.in[i] = t.in[index(a + i)], v.y[i] = t.y[index(a + i)];
    v.x_mid = t.x[index(a + 1)];
    if (t.policy == Recompute::none) return v;
    for (int64_t i : {0, 1}) {
      reserve_site(r.scratch, m, site_of(t, a + i), T, layers::Keep::backward, v.tape);
      Arena::Scope scope(r.scratch);
      run_site(r, site_of(t, a + i), v.in[i], v.tape, r.scratch.mat(m.compute, T, m.config.hidden_size), true);
    }
    return v;
  }
  v.x_mid = r.scratch.mat(m.compute, T, m.residual.streams * m.residual.dim);
  for (int64_t i : {0, 1}) {
    v.in[i] = r.scratch.mat(m.compute, T, m.config.hidden_size);
    v.y[i] = r.scratch.mat(m.compute, T, m.config.hidden_size);
    reserve_site(r.scratch, m, site_of(t, a + i), T, layers::Keep::backward, v.tape);
  }
  const ops::SiteWeights &attn = residual_of(m, site_of(t, a)), &ffn = residual_of(m, site_of(t, a + 1));
  ops::SiteSaved replayed = t.site[index(a)];  // the same bits are written again
  ops::site_open(r.exec, m.residual, attn, t.x[index(a)], replayed, v.in[0], r.scratch);
  run_site(r, site_of(t, a), v.in[0], v.tape, v.y[0], true);
  replayed = t.site[index(a + 1)];
  ops::site_advance(r.exec, m.residual, {{attn, t.site[index(a)]}, t.x[index(a)], v.y[0]}, v.x_mid, ffn, replayed,
                    v.in[1], r.scratch);
  run_site(r, site_of(t, a + 1), v.in[1], v.tape, v.y[1], true);
  return v;
}

}  // namespace

layers::Pass StackRun::layer(int64_t block) const {
  return {exec, m.ropes[spec_of(m, block).rope], ctx, scratch, m.stream_bytes};
}

void set_indexer_training(Model& m, IndexerTraining t) {
  for (BlockSpec& b : m.blocks)
    std::visit(
        [&](auto& attn) {
          if constexpr (kHasIndexer<LayerOf<std::decay_t<decltype(attn)>>>) attn.dense = t.dense;
        },
        b.attn);
}

void reserve_stack(Arena& arena, const Model& m, BlockRange blocks, int64_t tokens, StackTape::Keep keep,
                   Recompute policy, StackTape& t) {
  t.keep = keep;
  t.policy = policy;
  t.tokens = tokens;
  t.first_block = blocks.first;
  const int64_t S = 2 * blocks.count, D = m.config.hidden_size, wide = m.residual.streams * D;
  const bool backward = keep == StackTape::Keep::for_backward;
  auto make = [&](int64_t cols) { return arena.mat(m.compute, tokens, cols); };
  Mat shared_x, shared_in, shared_y;
  if (!backward || policy == Recompute::layer) shared_x = make(wide), shared_in = make(D), shared_y = make(D);
  for (int64_t s = 0; s <= S; ++s) {
    const bool keep_x = backward && (policy != Recompute::layer || s % 2 == 0);
    t.x.push_back(keep_x ? make(wide) : shared_x);
    if (s == S) break;
    const bool keep_in = backward && policy != Recompute::layer;
    t.in.push_back(keep_in ? make(D) : shared_in);
    t.y.push_back(keep_in ? make(D) : shared_y);
    t.site.push_back(ops::SiteSaved::take(arena, m.residual, tokens));
  }
  t.layers.resize(static_cast<size_t>(blocks.count));
  for (int64_t l = 0; l < blocks.count; ++l) {
    LayerTape& lt = t.layers[static_cast<size_t>(l)];
    if (const auto* spec = std::get_if<layers::Moe::Spec>(&spec_of(m, blocks.first + l).ffn)) {
      layers::Moe::Saved moe;
      layers::Moe::reserve_routing(arena, *spec, tokens, moe);
      lt.ffn = moe;
    }
    if (backward && policy == Recompute::none)
      for (int64_t i : {0, 1}) reserve_site(arena, m, site_of(t, 2 * l + i), tokens, layers::Keep::backward, lt);
  }
  if (m.residual.kind != ops::ResidualKind::plain) t.head = ops::HeadSaved::take(arena, m.residual, tokens);
  t.h = m.residual.kind == ops::ResidualKind::plain ? t.x.back() : make(D);
}

void forward_stack(const StackRun& r, const ops::HeadWeights& collapse, StackTape& t, const CachePool* caches) {
  BK_CHECK_EQ(caches != nullptr, t.keep == StackTape::Keep::cached);
  const Model& m = r.m;
  const auto S = static_cast<int64_t>(t.in.size());
  ops::site_open(r.exec, m.residual, residual_of(m, site_of(t, 0)), t.x[0], t.site[0], t.in[0], r.scratch);
  const bool stored = t.keep == StackTape::Keep::for_backward && t.policy == Recompute::none;
  if (m.stream_bytes) ops::will_need(r.exec, memory_of_site(r, site_of(t, 0), false));
  for (int64_t s = 0; s < S; ++s) {
    const auto i = static_cast<size_t>(s);
    const SiteOf at = site_of(t, s);
    {
      Arena::Scope scope(r.scratch);
      LayerTape& kept = t.layers[i / 2];
      LayerTape working = kept;  // without storage of its own the site works in scratch
      if (!stored)
        reserve_site(r.scratch, m, at, t.tokens, caches ? layers::Keep::cached : layers::Keep::outputs, working);
      if (m.stream_bytes && s + 1 < S) ops::will_need(r.exec, memory_of_site(r, site_of(t, s + 1), false));
      run_site(r, at, t.in[i], stored ? kept : working, t.y[i], false, caches);
      if (m.stream_bytes) ops::give_back(r.exec, memory_of_site(r, at, true));
    }
    const ops::SiteTensors run{{residual_of(m, at), t.site[i]}, t.x[i], t.y[i]};
    if (s + 1 < S)
      ops::site_advance(r.exec, m.residual, run, t.x[i + 1], residual_of(m, site_of(t, s + 1)), t.site[i + 1],
                        t.in[i + 1], r.scratch);
    else
      ops::site_close(r.exec, m.residual, run, t.x[i + 1], collapse, t.head, t.h, r.scratch);
  }
}

void backward_stack(const StackRun& r, const ops::HeadWeights& collapse, StackTape& t, const ops::HeadCotangents& d,
                    LayerLosses& losses, Weights& grads, ops::HeadWeights& d_collapse) {
  BK_CHECK(t.keep == StackTape::Keep::for_backward);
  Arena::Scope whole(r.scratch);
  const Model& m = r.m;
  const int64_t T = t.tokens, D = m.config.hidden_size, L = static_cast<int64_t>(t.layers.size());
  Mat dy = r.scratch.mat(m.compute, T, D), d_in = r.scratch.mat(m.compute, T, D);
  const auto write_of = [&](int64_t s) {
    return ops::SiteWriteGradient{{residual_of(m, site_of(t, s)), t.site[static_cast<size_t>(s)]}, dy};
  };
  ops::site_close_backward(r.exec, m.residual, {collapse, t.head, t.x.back()}, d, d_collapse, write_of(2 * L - 1),
                           r.scratch);
  for (int64_t l = L - 1; l >= 0; --l) {
    Arena::Scope scope(r.scratch);
    const LayerActivations v = rebuild_layer(r, t, l);
    for (int64_t i : {1, 0}) {
      const int64_t s = 2 * l + i;
      const SiteOf at = site_of(t, s);
      run_site_backward(r, at, v.in[i], v.tape, {dy, d_in}, losses, grads);
      const CMat x = i == 0 ? t.x[static_cast<size_t>(s)] : v.x_mid;
      const ops::Site site{residual_of(m, at), t.site[static_cast<size_t>(s)]};
      ops::site_retreat(r.exec, m.residual, {site, x, v.y[i]}, {d_in, d.dx, d.dx}, residual_of(grads, at),
                        s > 0 ? std::optional(write_of(s - 1)) : std::nullopt, r.scratch);
    }
  }
}

}  // namespace birkhoff::model
