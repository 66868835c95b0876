#include "layers/mla.h"

#include "reference/layers.h"
#include "support/layer_case.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using layers::Mla;

Mla::Spec spec_of(int64_t dim, int64_t heads, int64_t nope, int64_t rope, int64_t v, int64_t q_lora, int64_t kv_lora) {
  Mla::Spec s;
  s.dim = dim, s.heads = heads, s.nope = nope, s.rope = rope, s.v = v, s.q_lora = q_lora, s.kv_lora = kv_lora;
  s.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(nope + rope)));
  return s;
}

reference::Mla reference_of(const Mla::Spec& s) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  return {n(s.dim),
          n(s.heads),
          n(s.nope),
          n(s.rope),
          n(s.v),
          n(s.q_lora),
          n(s.kv_lora),
          static_cast<double>(s.scale),
          static_cast<double>(s.inner_eps),
          10000,
          s.layout == ops::RopeLayout::interleaved};
}

struct MlaCase {
  Mla::Spec s;
  Packed at;
  DType t;
  LayerWeights<Mla::Weights> lw;
  Owned x, dy, y, dx;

  MlaCase(const Mla::Spec& spec, const Packed& places, DType type)
      : s(spec),
        at(places),
        t(type),
        lw(Mla::Weights(spec), type, 3),
        x(random(tokens(), spec.dim, 1, 1.0, type)),
        dy(random(tokens(), spec.dim, 2, 1.0, type)) {}
  int64_t tokens() const { return static_cast<int64_t>(at.position.size()); }

  void run(int threads) {
    const Exec exec(threads);
    Arena memory(size_t{8} << 20), scratch(size_t{8} << 20);
    const ops::RopeTable rope = ops::make_rope_table(std::max<int64_t>(1, tokens()), s.rope, 10000, {});
    y = random(tokens(), s.dim, 4, 1.0, t),
    dx = random(tokens(), s.dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    auto saved = Mla::reserve(memory, s, t, tokens(), layers::Keep::backward);
    const layers::TokenContext ctx = at.context();
    const layers::Pass pass{exec, rope, ctx, scratch};
    Mla::forward(pass, s, lw.w, x, saved, y);
    Mla::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad);
    EXPECT_EQ(scratch.used(), 0u);
  }
};

// Products in a row, norms, rotation, softmax, and the chain back.
double tolerance(const MlaCase& c) {
  return chain_tolerance(8, std::max({c.s.dim, c.s.heads * c.s.qk(), c.tokens()}), c.t);
}

void check(const Mla::Spec& s, const Packed& places, size_t most) {
  for (DType t : {f32_t, bf16_t}) {
    SCOPED_TRACE(std::to_string(places.position.size()) + " tokens, q_lora " + std::to_string(s.q_lora) + " " +
                 dtype_name(t));
    MlaCase c(s, places, t);
    const reference::Mla spec = reference_of(s);
    const reference::Places at{places.position, places.first_key};
    Tensors<double> values = c.lw.values();
    values["x"] = c.x.values();
    const auto cotangent = c.dy.values();
    const auto want = reference::complex_gradient(
        values, [&](const auto& z) { return reference::dot(cotangent, spec(z, "", z.at("x"), at)); }, most);
    const auto want_y = spec(values, "", values.at("x"), at);
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      SCOPED_TRACE(isa_name(isa));
      c.run(1);
      expect_close(c.y.values(), want_y, tolerance(c) * largest(want_y), "y");
      Tensors<double> got = c.lw.gradients();
      got["x"] = c.dx.values();
      expect_gradients(got, want, tolerance(c));
    }
  }
}

TEST(Mla, ForwardAndGradients) {
  for (const int64_t q_lora : {0, 9}) {
    Mla::Spec s = spec_of(20, 2, 6, 4, 5, q_lora, 7);
    check(s, Packed(9, {0, 4, 5}), SIZE_MAX);
    s.layout = ops::RopeLayout::half_split;
    check(s, Packed(6), 60);
    s.inner_eps = 0.5f;  // large enough to be seen
    s.scale = 0.9f;
    check(s, Packed(7), 60);
    check(spec_of(1, 1, 1, 2, 1, q_lora ? 1 : 0, 1), Packed(1), SIZE_MAX);
    check(spec_of(24, 3, 16, 8, 17, q_lora, 15), Packed(70, {0, 33}), 8);
  }
}

// Tokens through a cache in pieces: the expanded form has the bits of the full forward, the absorbed form its values.
// Two documents, so that the cache holds keys nobody may see.
TEST(Mla, CacheInPieces) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const int64_t q_lora : {0, 9}) {
        MlaCase c(spec_of(24, 3, 10, 4, 17, q_lora, 15), Packed(90, {0, 40}), t);
        c.run(1);
        const ops::RopeTable rope = ops::make_rope_table(90, 4, 10000, {});
        Mla::Spec keeping = c.s;
        keeping.keeps_expanded = true;
        for (const int64_t piece : {1, 7, 64}) {
          const LayerCache<Mla> kept(keeping, t, ops::cache_type_of(t), 90);
          EXPECT_TRUE(through_cache<Mla>(keeping, c.lw.w, rope, c.at.context(), c.x, kept, piece).same_bytes(c.y))
              << "kept, pieces of " << piece;
          for (layers::MlaForm form : {layers::MlaForm::expanded, layers::MlaForm::absorbed}) {
            SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(t) + " pieces of " + std::to_string(piece) +
                         " form " + std::to_string(static_cast<int>(form)));
            const LayerCache<Mla> cache(c.s, t, ops::cache_type_of(t), 90);
            const Owned out = through_cache<Mla>(c.s, c.lw.w, rope, c.at.context(), c.x, cache, piece, form);
            if (form == layers::MlaForm::expanded)
              EXPECT_TRUE(out.same_bytes(c.y));
            else
              expect_close(out.values(), c.y.values(), (t == f32_t ? 2e-5 : 6e-2) * largest(c.y.values()), "absorbed");
          }
        }
      }
    }
  }
}

TEST(Mla, NoTokens) {
  MlaCase c(spec_of(8, 2, 4, 2, 4, 0, 4), Packed(0), f32_t);
  c.run(1);
  for (const auto& [name, g] : c.lw.gradients()) EXPECT_EQ(largest(g), 0.0) << name;
}

TEST(Mla, ThreadsDoNotMatter) {
  for (DType t : {f32_t, bf16_t}) {
    const Mla::Spec s = spec_of(48, 4, 16, 8, 16, 24, 32);
    MlaCase one(s, Packed(150, {0, 70}), t), three(s, Packed(150, {0, 70}), t);
    one.run(1);
    three.run(3);
    EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
    EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
  }
}

}  // namespace
}  // namespace birkhoff::test
