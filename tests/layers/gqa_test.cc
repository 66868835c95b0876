#include "layers/gqa.h"

#include "reference/layers.h"
#include "support/layer_case.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using layers::Gqa;

Gqa::Spec spec_of(int64_t dim, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {dim,
          heads,
          kv_heads,
          head_dim,
          static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim))),
          ops::RopeLayout::half_split};
}

Gqa::Spec with(Gqa::Spec s, bool bias, bool norm, float eps = 1e-6f) {
  s.bias = bias, s.norm = norm, s.eps = eps;
  return s;
}

struct GqaCase {
  Gqa::Spec s;
  Packed at;
  DType t;
  LayerWeights<Gqa::Weights> lw;
  Owned x, dy, y, dx;

  GqaCase(const Gqa::Spec& spec, const Packed& places, DType type)
      : s(spec),
        at(places),
        t(type),
        lw(Gqa::Weights(spec), type, 3),
        x(random(tokens(), spec.dim, 1, 1.0, type)),
        dy(random(tokens(), spec.dim, 2, 1.0, type)) {}
  int64_t tokens() const { return static_cast<int64_t>(at.position.size()); }

  void run(int threads) {
    const Exec exec(threads);
    Arena memory(size_t{8} << 20), scratch(size_t{8} << 20);
    const ops::RopeTable rope = ops::make_rope_table(std::max<int64_t>(1, tokens()), s.head_dim, 10000, {});
    y = random(tokens(), s.dim, 4, 1.0, t),
    dx = random(tokens(), s.dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    auto saved = Gqa::reserve(memory, s, t, tokens(), layers::Keep::backward);
    const layers::TokenContext ctx = at.context();
    const layers::Pass pass{exec, rope, ctx, scratch};
    Gqa::forward(pass, s, lw.w, x, saved, y);
    Gqa::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad);
    EXPECT_EQ(scratch.used(), 0u);
  }
};

void check(const Gqa::Spec& s, const Packed& places, size_t most) {
  for (DType t : {f32_t, bf16_t}) {
    SCOPED_TRACE(std::to_string(places.position.size()) + " tokens, heads " + std::to_string(s.heads) + "/" +
                 std::to_string(s.kv_heads) + " " + dtype_name(t));
    GqaCase c(s, places, t);
    const auto n = [](int64_t i) { return static_cast<size_t>(i); };
    const reference::Gqa spec{n(s.dim),
                              n(s.heads),
                              n(s.kv_heads),
                              n(s.head_dim),
                              static_cast<double>(s.scale),
                              10000,
                              {s.bias, s.norm, static_cast<double>(s.eps)}};
    const reference::Places at{places.position, places.first_key};
    Tensors<double> values = c.lw.values();
    values["x"] = c.x.values();
    const auto cotangent = c.dy.values();
    const auto want = reference::complex_gradient(
        values, [&](const auto& z) { return reference::dot(cotangent, spec(z, "", z.at("x"), at)); }, most);
    const auto want_y = spec(values, "", values.at("x"), at);
    const double e =
        chain_tolerance(6 + (s.bias ? 1 : 0) + (s.norm ? 2 : 0), std::max({s.dim, s.q_cols(), c.tokens()}), t);
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      SCOPED_TRACE(isa_name(isa));
      c.run(1);
      expect_close(c.y.values(), want_y, e * largest(want_y), "y");
      Tensors<double> got = c.lw.gradients();
      got["x"] = c.dx.values();
      expect_gradients(got, want, e);
    }
  }
}

TEST(Gqa, ForwardAndGradients) {
  check(spec_of(12, 2, 2, 6), Packed(8, {0, 3}), SIZE_MAX);
  check(spec_of(10, 4, 2, 4), Packed(7), SIZE_MAX);
  check(spec_of(9, 3, 1, 4), Packed(9, {0, 1, 6}), SIZE_MAX);
  check(spec_of(1, 1, 1, 2), Packed(1), SIZE_MAX);
  check(spec_of(33, 4, 2, 18), Packed(70, {0, 40}), 8);
}

TEST(Gqa, BiasesAndNormsOfHeads) {
  for (const auto& [bias, norm] : {std::pair{true, false}, {false, true}, {true, true}}) {
    SCOPED_TRACE(std::string(bias ? "bias " : "") + (norm ? "norm" : ""));
    check(with(spec_of(12, 2, 2, 6), bias, norm), Packed(8, {0, 3}), SIZE_MAX);
    check(with(spec_of(10, 4, 2, 4), bias, norm, 0.05f), Packed(7), SIZE_MAX);
    check(with(spec_of(1, 1, 1, 2), bias, norm, 0.5f), Packed(1), SIZE_MAX);
    check(with(spec_of(33, 4, 2, 18), bias, norm), Packed(70, {0, 40}), 8);
  }
}

// What a decoding step sees is what the whole sequence computed, and a forward alone needs no queries of its own.
TEST(Gqa, BiasesAndNormsThroughACache) {
  for (DType t : {f32_t, bf16_t}) {
    GqaCase c(with(spec_of(20, 4, 2, 6), true, true), Packed(23), t);
    c.run(2);
    const ops::RopeTable rope = ops::make_rope_table(64, c.s.head_dim, 10000, {});
    for (const int64_t piece : {1, 5, 23}) {
      const LayerCache<Gqa> cache(c.s, t, ops::cache_type_of(t), 23);
      const Owned y = through_cache<Gqa>(c.s, c.lw.w, rope, c.at.context(), c.x, cache, piece);
      expect_close(y.values(), c.y.values(), chain_tolerance(2, 23, t) * largest(c.y.values()), "piece");
    }
  }
  Arena memory(1 << 20);
  const Gqa::Spec s = with(spec_of(20, 4, 2, 6), false, true);
  const Gqa::Saved backward = Gqa::reserve(memory, s, f32_t, 3, layers::Keep::backward),
                   alone = Gqa::reserve(memory, s, f32_t, 3, layers::Keep::outputs);
  EXPECT_NE(backward.q.data, backward.a.data);
  EXPECT_EQ(alone.q.data, alone.a.data);
}

TEST(Gqa, NoTokens) {
  GqaCase c(with(spec_of(8, 2, 1, 4), true, true), Packed(0), f32_t);
  c.run(1);
  for (const auto& [name, g] : c.lw.gradients()) EXPECT_EQ(largest(g), 0.0) << name;
}

TEST(Gqa, ThreadsDoNotMatter) {
  for (DType t : {f32_t, bf16_t}) {
    const Gqa::Spec s = with(spec_of(48, 4, 2, 16), true, true);
    GqaCase one(s, Packed(150, {0, 70}), t), three(s, Packed(150, {0, 70}), t);
    one.run(1);
    three.run(3);
    EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
    EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
  }
}

}  // namespace
}  // namespace birkhoff::test
