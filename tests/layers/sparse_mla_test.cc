#include "layers/sparse_mla.h"

#include "reference/layers.h"
#include "support/layer_case.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using layers::IndexerLoss;
using layers::Mla;
using layers::MlaForm;
using layers::SparseMla;
using reference::KeyLists;

// Of a training step: nothing trains the indexer, its warm-up over all visible keys, the KL over what is selected.
enum class Stage { off, dense, sparse };

SparseMla::Spec spec_of(int64_t dim, int64_t heads, int64_t index_heads, int64_t index_dim, int64_t topk) {
  SparseMla::Spec s;
  s.mla.dim = dim, s.mla.heads = heads, s.mla.nope = 6, s.mla.rope = 4, s.mla.v = 5, s.mla.q_lora = 9,
  s.mla.kv_lora = 7;
  s.mla.scale = static_cast<float>(1 / std::sqrt(10.0));
  s.indexer.dim = dim, s.indexer.q_lora = 9, s.indexer.heads = index_heads, s.indexer.head_dim = index_dim,
  s.indexer.topk = topk;
  s.indexer.norm_eps = 1e-3f;
  return s;
}

reference::SparseMla reference_of(const SparseMla::Spec& s) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  const reference::Mla mla{n(s.mla.dim),
                           n(s.mla.heads),
                           n(s.mla.nope),
                           n(s.mla.rope),
                           n(s.mla.v),
                           n(s.mla.q_lora),
                           n(s.mla.kv_lora),
                           static_cast<double>(s.mla.scale),
                           static_cast<double>(s.mla.inner_eps),
                           10000,
                           true};
  return {mla, n(s.indexer.heads), n(s.indexer.head_dim), n(s.indexer.topk), static_cast<double>(s.indexer.norm_eps)};
}

constexpr float kDivergenceScale = 0.02f;

struct SparseMlaCase {
  SparseMla::Spec s;
  Packed at;
  DType t;
  LayerWeights<SparseMla::Weights> lw;
  Owned x, dy, y, dx;
  ops::RopeTable rope;
  KeyLists selected;
  IndexerLoss kl;
  Stage stage;

  SparseMlaCase(const SparseMla::Spec& spec, const Packed& places, DType type, Stage what = Stage::off)
      : s(spec),
        at(places),
        t(type),
        lw(SparseMla::Weights(spec), type, 3),
        x(random(tokens(), spec.mla.dim, 1, 1.0, type)),
        dy(random(tokens(), spec.mla.dim, 2, 1.0, type)),
        rope(ops::make_rope_table(std::max<int64_t>(1, tokens()), s.mla.rope, 10000, {})),
        stage(what) {
    s.dense = stage == Stage::dense;
  }
  int64_t tokens() const { return static_cast<int64_t>(at.position.size()); }

  void run(int threads) {
    const Exec exec(threads);
    Arena memory(size_t{8} << 20), scratch(size_t{128} << 20);
    y = random(tokens(), s.mla.dim, 4, 1.0, t),
    dx = random(tokens(), s.mla.dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    kl = {stage == Stage::off ? 0.f : kDivergenceScale, 0};
    auto saved = SparseMla::reserve(memory, s, t, tokens(), layers::Keep::backward);
    const layers::TokenContext ctx = at.context();
    const layers::Pass pass{exec, rope, ctx, scratch};
    SparseMla::forward(pass, s, lw.w, x, saved, y);
    SparseMla::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad, kl);
    EXPECT_EQ(scratch.used(), 0u);
    selected.clear();
    for (int64_t i = 0; i < saved.keys.rows; ++i)
      selected.emplace_back(saved.keys.row(i), std::find(saved.keys.row(i), saved.keys.row(i) + saved.keys.cols, -1));
  }

  // Tokens [0, T) through a cache in pieces.
  Owned cached(int64_t piece, MlaForm form, bool keeps_expanded = false) {
    SparseMla::Spec spec = s;
    spec.mla.keeps_expanded = keeps_expanded;
    const LayerCache<SparseMla> cache(spec, t, ops::cache_type_of(t), tokens());
    return through_cache<SparseMla>(spec, lw.w, rope, at.context(), x, cache, piece, form);
  }
};

double tolerance(const SparseMlaCase& c) {
  return chain_tolerance(8, std::max({c.s.mla.dim, c.s.mla.heads * c.s.mla.qk(), c.tokens()}), c.t);
}

bool of_indexer(const std::string& name) { return name.rfind("indexer.", 0) == 0; }

void check(const SparseMla::Spec& s, const Packed& places, DType t, Stage stage, size_t most) {
  SCOPED_TRACE(std::to_string(places.position.size()) + " tokens, stage " + std::to_string(static_cast<int>(stage)) +
               " " + dtype_name(t));
  SparseMlaCase c(s, places, t, stage);
  c.run(1);
  const reference::SparseMla spec = reference_of(s);
  const reference::Places at{places.position, places.first_key};
  Tensors<double> values = c.lw.values();
  const auto x = c.x.values();
  const bool dense = stage == Stage::dense;
  const KeyLists chosen = spec.lists(values, "", x, at, dense ? x.size() : spec.topk);
  // In bf16 near ties may fall either way: what was selected is then taken as given.
  const KeyLists lists = dense || t == f32_t ? chosen : c.selected;
  if (!dense && t == f32_t) {
    EXPECT_EQ(c.selected, chosen);
  }

  Tensors<double> main, index;
  for (const auto& [name, v] : values) (of_indexer(name) ? index : main)[name] = v;
  main["x"] = x;
  const auto cotangent = c.dy.values();
  auto want = reference::complex_gradient(
      main, [&](const auto& z) { return reference::dot(cotangent, spec(z, "", z.at("x"), at, lists)); }, most);
  const double factor = static_cast<double>(kDivergenceScale);
  for (const auto& [name, v] : reference::complex_gradient(
           index, [&](const auto& z) { return factor * spec.divergence(values, z, "", x, at, lists); }, most))
    want[name] = stage == Stage::off ? std::vector<double>(v.size()) : v;
  const auto want_y = spec(values, "", x, at, lists);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    c.run(1);
    expect_close(c.y.values(), want_y, tolerance(c) * largest(want_y), "y");
    Tensors<double> got = c.lw.gradients();
    got["x"] = c.dx.values();
    expect_gradients(got, want, tolerance(c));
    if (stage == Stage::off)
      EXPECT_EQ(c.kl.sum, 0);
    else
      EXPECT_NEAR(c.kl.sum / spec.divergence(values, values, "", x, at, lists), 1, t == f32_t ? 1e-4 : 5e-2);
  }
}

TEST(SparseMla, ForwardAndGradients) {
  for (Stage stage : {Stage::off, Stage::dense, Stage::sparse}) {
    for (DType t : {f32_t, bf16_t}) {
      check(spec_of(20, 2, 3, 8, 4), Packed(11), t, stage, 60);
      check(spec_of(20, 2, 1, 6, 5), Packed(40, {0, 3, 24}, {0, 24}), t, stage, 20);
      check(spec_of(20, 3, 2, 10, 64), Packed(30, {0, 17}), t, stage, 10);  // everything is selected
    }
  }
}

// Sequences no longer than topk are Mla to the bit, gradients included, whatever the indexer says.
TEST(SparseMla, ShortSequencesAreDense) {
  for (DType t : {f32_t, bf16_t}) {
    SparseMlaCase c(spec_of(20, 3, 2, 8, 16), Packed(40, {0, 15, 30}), t);
    c.run(1);
    LayerWeights<Mla::Weights> lw(Mla::Weights(c.s.mla), t, 3);
    Owned y(40, 20, t), dx(40, 20, t);
    Arena memory(size_t{8} << 20), scratch(size_t{8} << 20);
    auto saved = Mla::reserve(memory, c.s.mla, t, 40, layers::Keep::backward);
    const Exec exec(1);
    const layers::TokenContext ctx = c.at.context();
    const layers::Pass pass{exec, c.rope, ctx, scratch};
    Mla::forward(pass, c.s.mla, lw.w, c.x, saved, y);
    Mla::backward(pass, c.s.mla, lw.w, c.x, saved, {c.dy, dx}, lw.grad);
    EXPECT_TRUE(y.same_bytes(c.y) && dx.same_bytes(c.dx));
    const auto got = c.lw.gradients();
    for (const auto& [name, g] : lw.gradients()) EXPECT_EQ(g, got.at(name)) << name;
  }
}

TEST(SparseMla, ThreadsDoNotMatter) {
  for (Stage stage : {Stage::dense, Stage::sparse}) {
    for (DType t : {f32_t, bf16_t}) {
      SparseMlaCase one(spec_of(48, 4, 5, 16, 20), Packed(150, {0, 70}), t, stage), three(one.s, one.at, t, stage);
      one.run(1);
      three.run(3);
      EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
      EXPECT_EQ(one.kl.sum, three.kl.sum);
      EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
    }
  }
}

TEST(SparseMla, CacheInPieces) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      SparseMlaCase c(spec_of(24, 3, 4, 12, 12), Packed(80), t);
      c.run(1);
      for (int64_t piece : {1, 7, 64}) {
        SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(t) + " pieces of " + std::to_string(piece));
        EXPECT_TRUE(c.cached(piece, MlaForm::expanded).same_bytes(c.y));
        EXPECT_TRUE(c.cached(piece, MlaForm::expanded, true).same_bytes(c.y));
        expect_close(c.cached(piece, MlaForm::absorbed).values(), c.y.values(),
                     (t == f32_t ? 2e-5 : 6e-2) * largest(c.y.values()), "absorbed");
      }
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
