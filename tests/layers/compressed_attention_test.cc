#include "layers/compressed_attention.h"

#include "reference/compressed_attention.h"
#include "support/layer_case.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using layers::CompressedAttention;
using Attn = CompressedAttention;
constexpr float kIndexerScale = 0.3f;

Attn::Spec spec_of(int64_t ratio, int64_t window = 4) {
  Attn::Spec s;
  s.dim = 10, s.heads = 4, s.head_dim = 6, s.rope = 4, s.q_lora = 7, s.groups = 2, s.o_lora = 3, s.window = window,
  s.ratio = ratio;
  if (s.indexed()) s.index_heads = 3, s.index_dim = 6, s.index_topk = 3;
  return s;
}

reference::CompressedAttention reference_of(const Attn::Spec& s) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  return {n(s.dim),
          n(s.heads),
          n(s.head_dim),
          n(s.rope),
          n(s.q_lora),
          n(s.groups),
          n(s.o_lora),
          n(s.window),
          n(s.ratio),
          n(s.index_heads),
          n(s.index_dim),
          s.dense ? SIZE_MAX : n(s.index_topk),
          static_cast<double>(s.eps)};
}

struct CompressedCase {
  Attn::Spec s;
  Packed at;
  DType t;
  LayerWeights<Attn::Weights> lw;
  Owned x, dy, y, dx;
  layers::IndexerLoss kl;
  ops::RopeTable rope;
  std::vector<std::vector<size_t>> chosen;

  CompressedCase(const Attn::Spec& spec, const Packed& places, DType type)
      : s(spec),
        at(places),
        t(type),
        lw(Attn::Weights(spec), type, 3),
        x(random(tokens(), spec.dim, 1, 1.0, type)),
        dy(random(tokens(), spec.dim, 2, 1.0, type)),
        rope(ops::make_rope_table(std::max<int64_t>(1, tokens()), spec.rope, 10000, {})) {}
  int64_t tokens() const { return static_cast<int64_t>(at.position.size()); }

  void run(int threads, float indexer_scale = kIndexerScale) {
    const Exec exec(threads);
    Arena memory(size_t{64} << 20), scratch(size_t{64} << 20);
    y = random(tokens(), s.dim, 4, 1.0, t),
    dx = random(tokens(), s.dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    kl = {indexer_scale, 0.25};  // added to
    auto saved = Attn::reserve(memory, s, t, tokens(), layers::Keep::backward);
    const layers::TokenContext ctx = at.context();
    const layers::Pass pass{exec, rope, ctx, scratch};
    Attn::forward(pass, s, lw.w, x, saved, y);
    CompressedAttention::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad, kl);
    kl.sum -= 0.25;
    EXPECT_EQ(scratch.used(), 0u);
    chosen.assign(static_cast<size_t>(tokens()), {});
    for (int64_t i = 0; s.indexed() && i < tokens(); ++i)
      for (int64_t c = 0; c < saved.indexer.chosen.cols && saved.indexer.chosen.row(i)[c] >= 0; ++c)
        chosen[static_cast<size_t>(i)].push_back(static_cast<size_t>(saved.indexer.chosen.row(i)[c]));
  }

  // The outputs of a sequence fed in pieces through a cache.
  std::vector<double> cached(int64_t piece) {
    const LayerCache<Attn> cache(s, t, ops::cache_type_of(t), tokens());
    return through_cache<Attn>(s, lw.w, rope, at.context(), x, cache, piece).values();
  }
};

double tolerance(const CompressedCase& c) {
  return chain_tolerance(12, std::max({c.s.dim, c.s.heads * c.s.head_dim, c.tokens()}), c.t);
}

void check(const Attn::Spec& s, const Packed& places, size_t most) {
  for (DType t : {f32_t, bf16_t}) {
    SCOPED_TRACE("ratio " + std::to_string(s.ratio) + ", " + std::to_string(places.position.size()) + " tokens, " +
                 dtype_name(t));
    CompressedCase c(s, places, t);
    const reference::CompressedAttention spec = reference_of(s);
    const reference::Places at{places.position, places.first_key};
    Tensors<double> values = c.lw.values();
    values["x"] = c.x.values();
    const auto cotangent = c.dy.values();
    const auto want = spec(values, "", values.at("x"), at);
    auto gradient = reference::complex_gradient(
        values, [&](const auto& z) { return reference::dot(cotangent, spec(z, "", z.at("x"), at).y); }, most);
    if (s.indexed()) {  // learns from its KL alone, with constant inputs and target
      const auto kl = reference::complex_gradient(
          values,
          [&](const auto& z) {
            return static_cast<double>(kIndexerScale) * spec(z, "", z.at("x"), at, &want.target).kl;
          },
          most);
      for (auto& [name, g] : gradient)
        if (name.find("indexer") != std::string::npos) g = kl.at(name);
    }
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      SCOPED_TRACE(isa_name(isa));
      c.run(1);
      if (s.indexed() && t == f32_t) {
        ASSERT_EQ(c.chosen, want.chosen);
      }
      if (s.indexed() && c.chosen != want.chosen) continue;  // bf16 may decide a near tie otherwise
      expect_close(c.y.values(), want.y, tolerance(c) * largest(want.y), "y");
      EXPECT_NEAR(c.kl.sum, want.kl, tolerance(c) * 4 * static_cast<double>(c.tokens()));
      Tensors<double> got = c.lw.gradients();
      got["x"] = c.dx.values();
      expect_gradients(got, gradient, tolerance(c));
    }
  }
}

TEST(CompressedAttention, ForwardAndGradients) {
  check(spec_of(0), Packed(12, {0, 7}), 30);
  check(spec_of(6), Packed(27, {0, 5, 19}), 12);
  check(spec_of(4), Packed(33, {0, 10, 11}), 12);
  check(spec_of(4, 1), Packed(6), 12);
  Attn::Spec dense = spec_of(4);  // the indexer's warm-up: everything visible is attended to
  dense.dense = true;
  check(dense, Packed(31, {0, 2}), 12);
  check(spec_of(3, 40), Packed(10), 12);
  check(spec_of(0, 1), Packed(1), 30);
}

TEST(CompressedAttention, NoTokens) {
  for (const int64_t ratio : {0, 4, 6}) {
    CompressedCase c(spec_of(ratio), Packed(0), f32_t);
    c.run(1);
    for (const auto& [name, g] : c.lw.gradients()) EXPECT_EQ(largest(g), 0.0) << name;
    EXPECT_EQ(c.kl.sum, 0);
  }
}

// Across the window, entries of both kinds and the number the indexer keeps, whatever the size of the pieces.
TEST(CompressedAttention, CacheIsTheFullForward) {
  for (const int64_t ratio : {0, 3, 4, 16})
    for (const int64_t window : {1, 5, 16})
      for (DType t : {f32_t, bf16_t}) {
        SCOPED_TRACE("ratio " + std::to_string(ratio) + " window " + std::to_string(window) + " " + dtype_name(t));
        CompressedCase c(spec_of(ratio, window), Packed(83), t);
        c.run(1);
        for (const int64_t piece : {1, 2, 7, 16, 64, 83})
          EXPECT_EQ(c.cached(piece), c.y.values()) << "pieces of " << piece;
      }
}

TEST(CompressedAttention, DocumentsDoNotSeeEachOther) {
  for (const int64_t ratio : {0, 4, 5}) {
    CompressedCase packed(spec_of(ratio), Packed(40, {0, 9, 26}), f32_t), alone(spec_of(ratio), Packed(17), f32_t);
    for (int64_t i = 0; i < 17 * 10; ++i)
      alone.x.set(i, packed.x.at(9 * 10 + i)), alone.dy.set(i, packed.dy.at(9 * 10 + i));
    packed.run(1);
    alone.run(1);
    for (int64_t i = 0; i < 17 * 10; ++i) {
      ASSERT_EQ(alone.y.at(i), packed.y.at(9 * 10 + i)) << ratio << " " << i;
      ASSERT_EQ(alone.dx.at(i), packed.dx.at(9 * 10 + i)) << ratio << " " << i;
    }
  }
}

TEST(CompressedAttention, TheIndexerLearnsFromItsLossAlone) {
  CompressedCase c(spec_of(4), Packed(30), f32_t);
  c.run(1);
  const auto with = c.lw.gradients();
  const Owned dx = c.dx;
  c.run(1, 0);
  for (const auto& [name, g] : c.lw.gradients()) {
    if (name.find("indexer") == std::string::npos)
      EXPECT_EQ(g, with.at(name)) << name;
    else
      EXPECT_TRUE(largest(g) == 0 && largest(with.at(name)) > 0) << name;
  }
  EXPECT_TRUE(dx.same_bytes(c.dx));
}

TEST(CompressedAttention, ThreadsDoNotMatter) {
  for (const int64_t ratio : {0, 4, 7})
    for (DType t : {f32_t, bf16_t}) {
      Attn::Spec s = spec_of(ratio, 20);
      s.dim = 40, s.heads = 8, s.head_dim = 32, s.rope = 8, s.q_lora = 24;
      if (s.indexed()) s.index_dim = 16, s.index_topk = 9;
      CompressedCase one(s, Packed(300, {0, 130}), t), three(s, Packed(300, {0, 130}), t);
      one.run(1);
      three.run(3);
      EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
      EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
      EXPECT_EQ(one.kl.sum, three.kl.sum);
    }
}

}  // namespace
}  // namespace birkhoff::test
