// The probe of RouterRule::masked against a choice by sorting: the masked experts are the most probable ones, groups
// and top K see the rest.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "core/rng.h"
#include "ops/experts/routing.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using ops::RouterRule;
using ops::Scoring;
using test::Owned;

constexpr int64_t kMaskExperts = 12, kMaskActive = 3, kMaskTokens = 97;

struct Named {
  const char* name;
  RouterRule rule;
};
std::vector<Named> rules() {
  const auto make = [](Scoring scoring, int64_t groups, int64_t kept, bool bias) {
    RouterRule r;
    r.scoring = scoring, r.experts = kMaskExperts, r.active = kMaskActive, r.groups = groups, r.active_groups = kept,
    r.bias = bias, r.normalise = bias;
    return r;
  };
  return {{"softmax_topk", make(Scoring::softmax, 1, 1, false)},
          {"group_limited_greedy", make(Scoring::softmax, 4, 2, false)},
          {"noaux_tc", make(Scoring::sigmoid, 4, 2, true)},
          {"sqrtsoftplus", make(Scoring::sqrtsoftplus, 1, 1, true)}};
}

// Experts in descending order of value; a stable sort, so the lower index wins a tie.
std::vector<int> ranked(const std::vector<double>& value, std::vector<int> of) {
  std::stable_sort(of.begin(), of.end(),
                   [&](int a, int b) { return value[static_cast<size_t>(a)] > value[static_cast<size_t>(b)]; });
  return of;
}

std::vector<int32_t> chosen_by_sorting(const RouterRule& r, const float* scores, const float* bias) {
  std::vector<double> affinity(scores, scores + r.experts), choice(static_cast<size_t>(r.experts));
  for (size_t e = 0; e < choice.size(); ++e) choice[e] = r.bias ? scores[e] + bias[e] : scores[e];
  std::vector<int> all(static_cast<size_t>(r.experts));
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int> by_affinity = ranked(affinity, all);
  const std::set<int> masked(by_affinity.begin(), by_affinity.begin() + r.masked);
  std::vector<double> group_value;
  const auto size = static_cast<int>(r.experts / r.groups);
  for (int g = 0; g < r.groups; ++g) {
    std::vector<double> left;
    for (int e = g * size; e < (g + 1) * size; ++e)
      left.push_back(masked.count(e) ? -INFINITY : choice[static_cast<size_t>(e)]);
    std::sort(left.rbegin(), left.rend());
    group_value.push_back(r.bias ? left[0] + left[1] : left[0]);
  }
  std::vector<int> groups(static_cast<size_t>(r.groups));
  std::iota(groups.begin(), groups.end(), 0);
  groups = ranked(group_value, groups);
  std::vector<int> open;
  for (int e = 0; e < r.experts; ++e)
    if (!masked.count(e) && (r.groups == r.active_groups || std::find(groups.begin(), groups.begin() + r.active_groups,
                                                                      e / size) != groups.begin() + r.active_groups))
      open.push_back(e);
  std::vector<int> best = ranked(choice, open);
  std::vector<int32_t> chosen(best.begin(), best.begin() + r.active);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

struct Routed {
  Owned logits{kMaskTokens, kMaskExperts}, bias{1, kMaskExperts};
  Arena memory{size_t{1} << 20};
  ops::Routing r = ops::Routing::take(memory, kMaskTokens, kMaskExperts, kMaskActive);
  explicit Routed(const RouterRule& rule, int threads = 1) {
    for (int64_t i = 0; i < kMaskTokens * kMaskExperts; ++i) logits.set(i, Rng(3).normal(static_cast<uint64_t>(i)));
    for (int64_t e = 0; e < kMaskExperts; ++e) bias.set(e, 0.3 * Rng(4).normal(static_cast<uint64_t>(e)));
    ops::route_forward(Exec(threads), rule, logits, rule.bias ? CMat(bias) : CMat{}, r);
  }
  std::vector<int32_t> of(int64_t t) const {
    return {r.index.begin() + t * kMaskActive, r.index.begin() + (t + 1) * kMaskActive};
  }
};

TEST(RoutingMask, TheBestOfTheRestIsChosen) {
  for (const Named& n : rules()) {
    for (const int64_t masked : {0, 1, 2, 3}) {
      RouterRule rule = n.rule;
      rule.masked = masked;
      const Routed got(rule);
      for (int64_t t = 0; t < kMaskTokens; ++t)
        ASSERT_EQ(got.of(t), chosen_by_sorting(rule, got.r.scores.f32(t), got.bias.view().f32()))
            << n.name << " masked " << masked << " token " << t;
      EXPECT_EQ(std::accumulate(got.r.count.begin(), got.r.count.end(), 0), kMaskTokens * kMaskActive) << n.name;
    }
  }
}

TEST(RoutingMask, ScoresAndWeightsFollowTheRule) {
  for (const Named& n : rules()) {
    RouterRule rule = n.rule;
    rule.masked = 3;
    rule.scaling = 1.5f;
    const Routed plain(n.rule), got(rule);
    for (int64_t t = 0; t < kMaskTokens; ++t) {
      double sum = 0;
      for (int64_t k = 0; k < kMaskActive; ++k) sum += got.r.scores.f32(t)[got.of(t)[static_cast<size_t>(k)]];
      for (int64_t e = 0; e < kMaskExperts; ++e) ASSERT_EQ(got.r.scores.f32(t)[e], plain.r.scores.f32(t)[e]) << n.name;
      for (int64_t k = 0; k < kMaskActive; ++k) {
        const double want = 1.5 * got.r.scores.f32(t)[got.of(t)[static_cast<size_t>(k)]] / (rule.normalise ? sum : 1);
        ASSERT_NEAR(got.r.weights.f32(t)[k], want, 8 * 0x1p-24 * want) << n.name;
      }
    }
  }
}

TEST(RoutingMask, GivenChoicesStay) {
  RouterRule rule = rules()[3].rule;
  rule.bias = false;
  rule.masked = 4;
  Routed got(rule);
  Owned given(kMaskTokens, kMaskActive);
  for (int64_t i = 0; i < kMaskTokens * kMaskActive; ++i)
    given.set(i, static_cast<double>((i / kMaskActive + i % kMaskActive * 5) % kMaskExperts));
  ops::route_given(Exec(1), rule, got.logits, given, got.r);
  for (int64_t t = 0; t < kMaskTokens; ++t) {
    std::vector<int32_t> want;
    for (int64_t k = 0; k < kMaskActive; ++k) want.push_back(static_cast<int32_t>((t + k * 5) % kMaskExperts));
    std::sort(want.begin(), want.end());
    ASSERT_EQ(got.of(t), want);
  }
}

TEST(RoutingMask, MoreThanThereAreIsRefused) {
  RouterRule rule = rules()[1].rule;  // 6 experts in the groups a token may use
  rule.masked = 3;
  Routed fits(rule);
  rule.masked = 4;
  EXPECT_THROW(Routed{rule}, ContractViolation);
  rule.masked = -1;
  EXPECT_THROW(Routed{rule}, ContractViolation);
}

}  // namespace
}  // namespace birkhoff
