#include "layers/moe.h"

#include "reference/moe.h"
#include "support/layer_case.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using layers::Moe;
using ops::Scoring;

constexpr float kLossScale = 0.7f;  // of the balance losses

struct Rule {
  const char* name;
  ops::RouterRule rule;
};
ops::RouterRule rule_of(Scoring scoring, int64_t experts, int64_t active, int64_t groups, int64_t kept, bool bias,
                        bool normalise, float scaling) {
  ops::RouterRule r;
  r.scoring = scoring, r.experts = experts, r.active = active, r.groups = groups, r.active_groups = kept;
  r.bias = bias, r.normalise = normalise, r.scaling = scaling;
  return r;
}
std::vector<Rule> rules() {
  return {{"softmax_topk", rule_of(Scoring::softmax, 4, 2, 1, 1, false, false, 1)},
          {"mixtral", rule_of(Scoring::softmax, 4, 2, 1, 1, false, true, 1)},
          {"v2 group_limited_greedy", rule_of(Scoring::softmax, 6, 2, 3, 2, false, false, 4)},
          {"v3 noaux_tc", rule_of(Scoring::sigmoid, 6, 3, 3, 2, true, true, 2.5f)},
          {"v4 sqrtsoftplus", rule_of(Scoring::sqrtsoftplus, 4, 2, 1, 1, true, true, 1.5f)},
          {"all experts", rule_of(Scoring::softmax, 3, 3, 1, 1, false, true, 1)},
          {"one expert", rule_of(Scoring::sigmoid, 1, 1, 1, 1, true, false, 1)}};
}

reference::Moe reference_of(const Moe::Spec& s) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  reference::Moe m;
  m.dim = n(s.dim), m.inter = n(s.inter), m.shared_inter = n(s.shared_inter);
  const auto score = s.rule.scoring == Scoring::softmax   ? reference::Score::softmax
                     : s.rule.scoring == Scoring::sigmoid ? reference::Score::sigmoid
                                                          : reference::Score::sqrtsoftplus;
  m.router = {score,
              n(s.rule.experts),
              n(s.rule.active),
              n(s.rule.groups),
              n(s.rule.active_groups),
              s.rule.bias,
              s.rule.normalise,
              static_cast<double>(s.rule.scaling)};
  const auto& b = s.balance;
  m.balance = {b.expert, b.device, b.communication, b.sequence, b.mixtral, n(b.devices), n(b.devices_per_token)};
  m.limit = static_cast<double>(s.limit);
  return m;
}

struct MoeCase {
  Moe::Spec s;
  Packed at;
  DType t;
  LayerWeights<Moe::Weights> lw;
  Owned x, dy, y, dx;
  ops::BalanceLoss balance;
  std::vector<size_t> index;
  std::vector<int32_t> ids;

  MoeCase(const Moe::Spec& spec, const Packed& places, DType type)
      : s(spec),
        at(places),
        t(type),
        lw(Moe::Weights(spec), type, 11),
        x(random(tokens(), spec.dim, 1, 1.0, type)),
        dy(random(tokens(), spec.dim, 2, 1.0, type)) {
    for (int64_t i = 0; s.hash_vocab && i < tokens(); ++i)
      ids.push_back(static_cast<int32_t>((i * 7 + 3) % s.hash_vocab));
    for (int64_t i = 0; i < lw.w.table.size(); ++i)  // K different experts a row, not in ascending order
      lw.w.table.f32()[i] =
          static_cast<float>((i / s.rule.active * 5 + (s.rule.active - i % s.rule.active) * 3) % s.rule.experts);
  }
  int64_t tokens() const { return static_cast<int64_t>(at.position.size()); }

  void run(int threads, int64_t stream_bytes = 0) {
    const Exec exec(threads);
    layers::TokenContext ctx = at.context();
    ctx.token_id = ids;
    Arena memory(size_t{8} << 20), scratch(size_t{8} << 20);
    y = random(tokens(), s.dim, 4, 1.0, t),
    dx = random(tokens(), s.dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    Moe::Saved saved;
    Moe::reserve_routing(memory, s, tokens(), saved);
    Moe::reserve_activations(memory, s, t, tokens(), saved);
    const ops::RopeTable none;
    const layers::Pass pass{exec, none, ctx, scratch, stream_bytes};
    Moe::route(pass, s, lw.w, x, saved);
    Moe::forward(pass, s, lw.w, x, saved, y);
    balance = {kLossScale, 0.25, {}, 0};  // added to
    ops::pool_choices(saved.routing, balance);
    Moe::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad, balance);
    index.assign(saved.routing.index.begin(), saved.routing.index.end());
    EXPECT_EQ(scratch.used(), 0u);
  }
};

void check(const Moe::Spec& s, const Packed& places, size_t most) {
  for (DType t : {f32_t, bf16_t}) {
    SCOPED_TRACE(std::to_string(places.position.size()) + " tokens " + dtype_name(t));
    MoeCase c(s, places, t);
    const reference::Moe spec = reference_of(s);
    const auto T = static_cast<size_t>(c.tokens());
    Tensors<double> values = c.lw.values();
    values["x"] = c.x.values();
    const auto cotangent = c.dy.values();
    const auto want = reference::complex_gradient(
        values,
        [&](const auto& z) {
          const auto r = spec(z, "", z.at("x"), T, places.sequence_start, c.ids);
          return reference::dot(cotangent, r.y) + static_cast<double>(kLossScale) * r.balance;
        },
        most);
    const auto r = spec(values, "", values.at("x"), T, places.sequence_start, c.ids);
    const double e = chain_tolerance(7, std::max({s.dim, s.inter, s.shared_inter, c.tokens()}), t);
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      SCOPED_TRACE(isa_name(isa));
      c.run(1);
      ASSERT_EQ(c.index, r.index);
      expect_close(c.y.values(), r.y, e * largest(r.y), "y");
      EXPECT_NEAR(c.balance.sum - 0.25, r.balance, 0x1p-18 * (1 + std::abs(r.balance)));
      Tensors<double> got = c.lw.gradients();
      got["x"] = c.dx.values();
      expect_gradients(got, want, e);
    }
  }
}

Moe::Spec spec_of(const ops::RouterRule& rule, int64_t dim, int64_t inter, int64_t shared) {
  Moe::Spec s;
  s.dim = dim, s.inter = inter, s.shared_inter = shared, s.rule = rule;
  return s;
}

TEST(Moe, EveryRouterForwardAndGradients) {
  for (const Rule& r : rules()) {
    SCOPED_TRACE(r.name);
    check(spec_of(r.rule, 9, 5, 0), Packed(8), 60);
    check(spec_of(r.rule, 6, 4, 7), Packed(1), 60);
    check(spec_of(r.rule, 12, 17, 10), Packed(40, {0, 20}, {0, 20}), 8);
  }
}

// V4: the gate's limit cuts a good part of these activations; the first layers look their experts up by token.
TEST(Moe, ClampedAndHashed) {
  for (const int64_t vocab : {0, 11}) {
    ops::RouterRule rule = rule_of(Scoring::sqrtsoftplus, 7, 2, 1, 1, vocab == 0, true, 1.5f);
    Moe::Spec s = spec_of(rule, 9, 5, 6);
    s.limit = 0.8f;
    s.hash_vocab = vocab;
    check(s, Packed(25, {0, 20}, {0, 20}), 30);
  }
}

TEST(Moe, EveryBalanceLoss) {
  using B = ops::BalanceCoefficients;
  const std::vector<std::pair<const char*, void (*)(B&)>> losses = {
      {"expert", [](B& b) { b.expert = 0.8; }},
      {"device", [](B& b) { b.device = 0.9, b.devices = 2; }},
      {"communication", [](B& b) { b.communication = 0.7, b.devices = 2, b.devices_per_token = 1; }},
      {"sequence", [](B& b) { b.sequence = 1.1; }},
      {"mixtral", [](B& b) { b.mixtral = 0.6; }},
      {"all",
       [](B& b) {
         b.expert = 0.3, b.device = 0.4, b.communication = 0.5, b.sequence = 0.6, b.mixtral = 0.7, b.devices = 2,
         b.devices_per_token = 2;
       }},
  };
  for (const Rule& r : rules()) {
    if (r.rule.experts % 2) continue;
    for (const auto& [name, set] : losses) {
      SCOPED_TRACE(std::string(r.name) + ", " + name);
      Moe::Spec s = spec_of(r.rule, 7, 3, 0);
      set(s.balance);
      check(s, Packed(9, {0, 2, 5}, {0, 5}), 30);
    }
  }
}

// Perfect balance: the expert-level loss of a softmax router is its coefficient (models.md C.3).
TEST(Moe, BalancedLoadCostsTheCoefficient) {
  Moe::Spec s = spec_of(rule_of(Scoring::softmax, 4, 4, 1, 1, false, false, 1), 6, 4, 0);
  s.balance.expert = 0.003;
  MoeCase c(s, Packed(33), f32_t);
  c.run(1);
  EXPECT_NEAR(c.balance.sum - 0.25, 0.003, 1e-8);
}

TEST(Moe, NoTokens) {
  for (const int64_t shared : {0, 4}) {
    Moe::Spec s = spec_of(rules()[3].rule, 8, 4, shared);
    s.balance.sequence = 1;
    MoeCase c(s, Packed(0), f32_t);
    c.run(1);
    for (const auto& [name, g] : c.lw.gradients()) EXPECT_EQ(largest(g), 0.0) << name;
    EXPECT_EQ(c.balance.sum, 0.25);
  }
}

TEST(Moe, ThreadsDoNotMatter) {
  for (DType t : {f32_t, bf16_t}) {
    Moe::Spec s = spec_of(rule_of(Scoring::sigmoid, 16, 4, 1, 1, true, true, 1), 40, 24, 48);
    s.balance.sequence = 0.1;
    const Packed at(500, {0, 200, 300}, {0, 300});
    MoeCase one(s, at, t), three(s, at, t);
    one.run(1);
    three.run(3);
    EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
    EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
    EXPECT_EQ(one.balance.sum, three.balance.sum);
  }
}

// Experts one or two at a time while the next are asked for: the same bits.
TEST(Moe, StreamedExpertsAreTheSame) {
  for (DType t : {f32_t, bf16_t}) {
    const Moe::Spec s = spec_of(rule_of(Scoring::sigmoid, 16, 4, 1, 1, true, true, 1), 40, 24, 48);
    for (const int64_t tokens : {1, 3, 60, 0}) {
      MoeCase whole(s, Packed(tokens), t);
      whole.run(2);
      for (const int64_t bytes : {1, 10000, 1 << 30}) {
        MoeCase streamed(s, Packed(tokens), t);
        streamed.run(2, bytes);
        EXPECT_TRUE(streamed.y.same_bytes(whole.y)) << tokens << " tokens, " << bytes << " bytes at a time";
      }
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
