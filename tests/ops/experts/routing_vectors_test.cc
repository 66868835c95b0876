// Routers, balance losses and the bias rule against float64 vectors of an independent implementation.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ops/experts/balance.h"
#include "ops/experts/routing.h"
#include "support/golden.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using ops::RouterRule;
using ops::Scoring;
using test::golden;
using test::Owned;

constexpr int64_t kExperts = 16, kActive = 4, kGroups = 4, kKept = 2;

const io::SafetensorsFile& file() { return test::golden_file("vectors/router_vectors.safetensors"); }

RouterRule rule(Scoring scoring, bool groups, bool bias, bool normalise, float scaling) {
  RouterRule r;
  r.scoring = scoring;
  r.experts = kExperts, r.active = kActive;
  if (groups) r.groups = kGroups, r.active_groups = kKept;
  r.bias = bias, r.normalise = normalise, r.scaling = scaling;
  return r;
}

class Vectors : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
  // The losses of one layer.
  double loss_of(const RouterRule& rule, const ops::BalanceCoefficients& on, CMat logits, const ops::Routing& r,
                 const std::vector<int32_t>& starts, float scale, Mat d_logits) {
    ops::BalanceLoss loss;
    loss.scale = scale;
    ops::pool_choices(r, loss);
    ops::balance_losses(exec_, rule, on, {logits, r, starts}, loss, d_logits, scratch_);
    return loss.sum;
  }
  Exec exec_{2};
  Arena memory_{size_t{4} << 20}, scratch_{size_t{4} << 20};
};

TEST_P(Vectors, Routers) {
  const struct {
    const char* name;
    RouterRule rule;
  } cases[] = {{"softmax_topk", rule(Scoring::softmax, false, false, false, 1)},
               {"softmax_topk_normalised", rule(Scoring::softmax, false, false, true, 1)},
               {"group_limited_greedy", rule(Scoring::softmax, true, false, false, 16)},
               {"noaux_tc", rule(Scoring::sigmoid, true, true, true, 2.5f)},
               {"sqrtsoftplus", rule(Scoring::sqrtsoftplus, false, true, true, 1.5f)}};
  for (const auto& c : cases) {
    const std::string key = std::string("route.") + c.name;
    const int64_t T = test::golden_shape(file(), key + ".logits")[0];
    const Owned logits(T, kExperts, golden(file(), key + ".logits")),
        cotangent(T, kActive, golden(file(), key + ".cotangent"));
    const Owned bias(1, kExperts, c.rule.bias ? golden(file(), key + ".bias") : std::vector<double>(kExperts));
    ops::Routing r = ops::Routing::take(memory_, T, kExperts, kActive);
    ops::route_forward(exec_, c.rule, logits, c.rule.bias ? CMat(bias) : CMat{}, r);
    const auto index = golden(file(), key + ".index"), weight = golden(file(), key + ".weight"),
               want = golden(file(), key + ".d_logits");
    for (int64_t i = 0; i < T * kActive; ++i)
      ASSERT_EQ(r.index[static_cast<size_t>(i)], index[static_cast<size_t>(i)]) << key << " " << i;
    // A score is a few roundings from its logit (|logit| < 8 amplifies one of the exponent's argument by 8), the weight
    // two more.
    std::vector<double> got;
    for (int64_t i = 0; i < T * kActive; ++i) got.push_back(r.weights.f32()[i]);
    test::expect_close(got, weight, 16 * 0x1p-24 * test::largest(weight), key);
    Owned d_logits(T, kExperts);
    ops::route_backward(exec_, c.rule, logits, r, cotangent, d_logits);
    test::expect_close(d_logits.values(), want,
                       32 * 0x1p-24 * std::max(1.0, test::largest(weight)) * test::largest(cotangent.values()),
                       key + ".d_logits");
  }
}

TEST_P(Vectors, HashRouting) {
  const RouterRule hash = rule(Scoring::sqrtsoftplus, false, false, true, 1.5f);
  const std::string key = "route.sqrtsoftplus_hash";
  const int64_t T = test::golden_shape(file(), key + ".logits")[0];
  const Owned logits(T, kExperts, golden(file(), key + ".logits")),
      cotangent(T, kActive, golden(file(), key + ".cotangent"));
  const auto index = golden(file(), key + ".index"), weight = golden(file(), key + ".weight"),
             want = golden(file(), key + ".d_logits");
  Owned given(T, kActive, index);
  for (int64_t t = 0; t < T;
       ++t) {  // a table lists experts in any order; weights come in ascending order of the expert
    const double first = given.at(t, 0);
    given.set(t * kActive, given.at(t, kActive - 1));
    given.set(t * kActive + kActive - 1, first);
  }
  ops::Routing r = ops::Routing::take(memory_, T, kExperts, kActive);
  ops::route_given(exec_, hash, logits, given, r);
  std::vector<double> got;
  for (int64_t i = 0; i < T * kActive; ++i) {
    ASSERT_EQ(r.index[static_cast<size_t>(i)], index[static_cast<size_t>(i)]) << i;
    got.push_back(r.weights.f32()[i]);
  }
  test::expect_close(got, weight, 16 * 0x1p-24 * test::largest(weight), key);
  Owned d_logits(T, kExperts);
  ops::route_backward(exec_, hash, logits, r, cotangent, d_logits);
  test::expect_close(d_logits.values(), want,
                     32 * 0x1p-24 * std::max(1.0, test::largest(weight)) * test::largest(cotangent.values()),
                     key + ".d_logits");
  EXPECT_EQ(r.offsets.back(), T * kActive);
}

TEST_P(Vectors, BalanceLosses) {
  ops::BalanceCoefficients expert, device, communication, sequence_v2, batch_v2, sequence, mixtral;
  expert.expert = 0.01;
  device.device = 0.05, device.devices = kGroups;
  communication.communication = 0.02, communication.devices = kGroups, communication.devices_per_token = kKept;
  sequence_v2.sequence = 0.001;
  batch_v2.expert = 0.001;
  sequence.sequence = 1e-4;
  mixtral.mixtral = 1;
  const RouterRule soft = rule(Scoring::softmax, false, false, false, 1),
                   limited = rule(Scoring::softmax, true, false, false, 1),
                   noaux = rule(Scoring::sigmoid, true, true, true, 1),
                   sqrt = rule(Scoring::sqrtsoftplus, false, true, true, 1);
  const struct {
    const char *name, *index;
    RouterRule rule;
    ops::BalanceCoefficients on;
  } cases[] = {{"expert_level", "softmax", soft, expert},
               {"device_level", "group_limited", limited, device},
               {"communication_level", "group_limited", limited, communication},
               {"sequence_v2", "softmax", soft, sequence_v2},
               {"batch_v2", "softmax", soft, batch_v2},
               {"sequence_v3", "noaux", noaux, sequence},
               {"sequence_v4", "sqrtsoftplus", sqrt, sequence},
               {"mixtral", "softmax", soft, mixtral}};
  const auto shape = test::golden_shape(file(), "balance.logits");
  const int64_t T = shape[0] * shape[1];
  const Owned logits(T, kExperts, golden(file(), "balance.logits")), bias(1, kExperts, golden(file(), "balance.bias"));
  std::vector<int32_t> starts;
  for (int64_t b = 0; b < shape[0]; ++b) starts.push_back(static_cast<int32_t>(b * shape[1]));
  for (const auto& c : cases) {
    ops::Routing r = ops::Routing::take(memory_, T, kExperts, kActive);
    ops::route_forward(exec_, c.rule, logits, c.rule.bias ? CMat(bias) : CMat{}, r);
    const auto index = golden(file(), std::string("balance.index.") + c.index);
    for (int64_t i = 0; i < T * kActive; ++i)
      ASSERT_EQ(r.index[static_cast<size_t>(i)], index[static_cast<size_t>(i)]) << c.name;
    const std::string key = std::string("balance.") + c.name;
    Owned d(T, kExperts), twice(T, kExperts);
    const double value = golden(file(), key + ".value")[0];
    EXPECT_NEAR(loss_of(c.rule, c.on, logits, r, starts, 1.f, d), value, 64 * 0x1p-24 * value) << key;
    const auto want = golden(file(), key + ".d_logits");
    // The gradient is a difference of coefficients of the size of the value, over T tokens: 16 roundings of what
    // cancels.
    const double limit = 16 * 0x1p-24 * value / static_cast<double>(T);
    test::expect_close(d.values(), want, limit, key);
    // Accumulates, and the scale multiplies the gradient alone.
    loss_of(c.rule, c.on, logits, r, starts, 1.f, twice);
    EXPECT_NEAR(loss_of(c.rule, c.on, logits, r, starts, 0.5f, twice), value, 64 * 0x1p-24 * value) << key;
    std::vector<double> more(want);
    for (double& x : more) x *= 1.5;
    test::expect_close(twice.values(), more, 2 * limit, key + " twice");
  }
}

TEST_P(Vectors, SeveralLossesAtOnceAreTheirSum) {
  const RouterRule limited = rule(Scoring::softmax, true, false, false, 1);
  const auto shape = test::golden_shape(file(), "balance.logits");
  const int64_t T = shape[0] * shape[1];
  const Owned logits(T, kExperts, golden(file(), "balance.logits"));
  const std::vector<int32_t> starts = {0, static_cast<int32_t>(shape[1]), static_cast<int32_t>(2 * shape[1])};
  ops::Routing r = ops::Routing::take(memory_, T, kExperts, kActive);
  ops::route_forward(exec_, limited, logits, {}, r);
  ops::BalanceCoefficients all;
  all.expert = 0.1, all.device = 0.2, all.communication = 0.3, all.sequence = 0.4, all.mixtral = 0.5;
  all.devices = kGroups, all.devices_per_token = kKept;
  Owned together(T, kExperts), apart(T, kExperts);
  const double sum = loss_of(limited, all, logits, r, starts, 1.f, together);
  double parts = 0;
  for (double ops::BalanceCoefficients::*one :
       {&ops::BalanceCoefficients::expert, &ops::BalanceCoefficients::device, &ops::BalanceCoefficients::communication,
        &ops::BalanceCoefficients::sequence, &ops::BalanceCoefficients::mixtral}) {
    ops::BalanceCoefficients c;
    c.devices = kGroups, c.devices_per_token = kKept;
    c.*one = all.*one;
    parts += loss_of(limited, c, logits, r, starts, 1.f, apart);
  }
  EXPECT_NEAR(sum, parts, 64 * 0x1p-24 * sum);
  test::expect_close(together.values(), apart.values(), 128 * 0x1p-24 * test::largest(apart.values()), "gradient");
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Vectors, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

TEST(BiasRule, Vectors) {
  Owned bias(1, kExperts, golden(file(), "bias_update.start"));
  const auto loads = golden(file(), "bias_update.loads"), after = golden(file(), "bias_update.after");
  const double gamma = golden(file(), "bias_update.gamma")[0];
  for (size_t step = 0; step < loads.size() / kExperts; ++step) {
    const std::vector<int64_t> load(loads.begin() + static_cast<int64_t>(step) * kExperts,
                                    loads.begin() + static_cast<int64_t>(step + 1) * kExperts);
    ops::update_router_bias(load, gamma, bias);
    const std::vector<double> want(after.begin() + static_cast<int64_t>(step) * kExperts,
                                   after.begin() + static_cast<int64_t>(step + 1) * kExperts);
    test::expect_close(bias.values(), want, static_cast<double>(step + 1) * 0x1p-24 * 0.1,
                       "step " + std::to_string(step));
  }
}

TEST(BiasRule, MaxViolation) {
  EXPECT_DOUBLE_EQ(ops::max_violation(std::vector<int64_t>{10, 20, 30}), 0.5);
  EXPECT_DOUBLE_EQ(ops::max_violation(std::vector<int64_t>{7, 7}), 0);
  EXPECT_DOUBLE_EQ(ops::max_violation(std::vector<int64_t>{0, 0}), 0);
}

}  // namespace
}  // namespace birkhoff
