#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "core/rng.h"
#include "infer/sampling_reference.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::SamplerOptions;

int32_t sample(std::span<const float> logits, const SamplerOptions& o, uint64_t index) {
  std::vector<int32_t> buffer;
  return infer::sample(logits, o, index, buffer);
}

SamplerOptions with(double temperature, int64_t top_k = 0, double top_p = 1, double min_p = 0, uint64_t seed = 1) {
  SamplerOptions o;
  o.temperature = temperature, o.top_k = top_k, o.top_p = top_p, o.min_p = min_p, o.seed = seed;
  return o;
}

// Probabilities .1 .4 .05 .25 .2 at temperature 1.
const std::vector<double> kP = {0.1, 0.4, 0.05, 0.25, 0.2};
std::vector<float> logits() {
  std::vector<float> l;
  for (double p : kP) l.push_back(static_cast<float>(std::log(p) + 3));
  return l;
}

std::vector<double> frequencies(const std::vector<float>& l, const SamplerOptions& o, int draws) {
  std::vector<double> f(l.size());
  for (int i = 0; i < draws; ++i) f[static_cast<size_t>(sample(l, o, static_cast<uint64_t>(i)))] += 1.0 / draws;
  return f;
}

std::set<int32_t> support(const SamplerOptions& o) {
  std::set<int32_t> s;
  for (uint64_t i = 0; i < 4000; ++i) s.insert(sample(logits(), o, i));
  return s;
}

// Frequencies of n draws scatter by sqrt(p (1-p) / n); five of those.
void expect_frequencies(const SamplerOptions& o, const std::vector<double>& want) {
  constexpr int kDraws = 40000;
  const auto got = frequencies(logits(), o, kDraws);
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 5 * std::sqrt(want[i] * (1 - want[i]) / kDraws)) << "token " << i;
}

TEST(Sampler, TemperatureZeroTakesTheLargest) {
  EXPECT_EQ(sample(logits(), with(0), 0), 1);
  EXPECT_EQ(sample(std::vector<float>{1, 5, 5, 2}, with(0), 7), 1) << "the lower id of equals";
  EXPECT_EQ(sample(std::vector<float>{-INFINITY, -3, -4}, with(0), 0), 1);
  EXPECT_EQ(sample(std::vector<float>{2}, with(0), 0), 0);
}

TEST(Sampler, DrawsTheSoftmax) {
  expect_frequencies(with(1), kP);
  std::vector<double> squared;
  double sum = 0;
  for (double p : kP) squared.push_back(p * p), sum += p * p;
  for (double& p : squared) p /= sum;
  expect_frequencies(with(0.5), squared);
  expect_frequencies(with(1e9), {0.2, 0.2, 0.2, 0.2, 0.2});
  EXPECT_EQ(support(with(1e-6)), std::set<int32_t>{1});
}

TEST(Sampler, TopK) {
  EXPECT_EQ(support(with(1, 1)), std::set<int32_t>{1});
  EXPECT_EQ(support(with(5, 2)), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support(with(1, 99)).size(), 5u);
  expect_frequencies(with(1, 3), {0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85});
}

TEST(Sampler, TopP) {  // the smallest set that reaches the share
  EXPECT_EQ(support(with(1, 0, 1e-9)), std::set<int32_t>{1});
  EXPECT_EQ(support(with(1, 0, 0.39)), std::set<int32_t>{1});
  EXPECT_EQ(support(with(1, 0, 0.41)), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support(with(1, 0, 0.84)), (std::set<int32_t>{1, 3, 4}));
  EXPECT_EQ(support(with(1, 0, 0.96)).size(), 5u);
  expect_frequencies(with(1, 0, 0.6), {0, 0.4 / 0.65, 0, 0.25 / 0.65, 0});
}

TEST(Sampler, MinP) {  // at least this share of the largest, .4
  EXPECT_EQ(support(with(1, 0, 1, 1.0)), std::set<int32_t>{1});
  EXPECT_EQ(support(with(1, 0, 1, 0.6)), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support(with(1, 0, 1, 0.24)), (std::set<int32_t>{0, 1, 3, 4}));
  EXPECT_EQ(support(with(1, 0, 1, 0.1)).size(), 5u);
}

TEST(Sampler, LimitsCombine) {
  EXPECT_EQ(support(with(1, 4, 0.6, 0.1)), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(support(with(1, 2, 1, 0.24)), (std::set<int32_t>{1, 3}));
}

SamplerOptions with_typical(double typical_p) {
  SamplerOptions o;
  o.typical_p = typical_p;
  return o;
}

// -log p: 2.30 .916 3.00 1.39 1.61, entropy 1.415: nearest are ids 3, 4, 1, 0, 2.
TEST(Sampler, TypicalP) {
  EXPECT_EQ(support(with_typical(0.2)), std::set<int32_t>{3});
  EXPECT_EQ(support(with_typical(0.26)), (std::set<int32_t>{3, 4}));
  EXPECT_EQ(support(with_typical(0.46)), (std::set<int32_t>{1, 3, 4}));
  EXPECT_EQ(support(with_typical(0.94)), (std::set<int32_t>{0, 1, 3, 4}));
  expect_frequencies(with_typical(0.3), {0, 0, 0, 0.25 / 0.45, 0.2 / 0.45});
}

TEST(Sampler, EquallyTypicalIdsAreAllKept) {
  const std::vector<float> l = {2, 1, 1, -INFINITY, 1, -900};
  std::vector<int32_t> buffer;
  std::vector<double> p(l.size());
  infer::probabilities(l, with_typical(1e-9), buffer, p);  // the largest is further from the entropy than they are
  for (size_t i = 0; i < l.size(); ++i) EXPECT_NEAR(p[i], i == 1 || i == 2 || i == 4 ? 1.0 / 3 : 0, 1e-15);
  std::vector<double> even(4);
  infer::probabilities(std::vector<float>(4, 1.f), with_typical(0.3), buffer, even);
  EXPECT_EQ(even, std::vector<double>(4, 0.25));
}

const std::vector<float> kTwelve = {0.5f, 2, -1, 2, 0, -INFINITY, 1.25f, -3, 0, 3, 1, -0.5f};

// What transformers 5.24 leaves (TemperatureLogitsWarper, TopKLogitsWarper, TypicalLogitsWarper).
TEST(Sampler, TypicalAsTransformers) {
  struct Case {
    double temperature;
    int64_t top_k;
    double typical_p;
    std::set<int32_t> ids;
  };
  std::vector<int32_t> buffer;
  std::vector<double> p(kTwelve.size());
  for (const Case& c : std::vector<Case>{{0.5, 0, 0.5, {9}},
                                         {0.5, 6, 0.8, {1, 3, 9}},
                                         {1, 0, 0.2, {1, 3}},
                                         {1, 0, 0.8, {1, 3, 6, 9}},
                                         {1, 0, 0.95, {0, 1, 3, 4, 6, 8, 9, 10}},
                                         {1, 6, 0.5, {1, 3, 9}},
                                         {1, 6, 0.95, {1, 3, 6, 9, 10}},
                                         {2, 0, 0.2, {1, 3, 6, 10}},
                                         {2, 0, 0.95, {0, 1, 3, 4, 6, 8, 9, 10, 11}},
                                         {2, 6, 0.5, {1, 3, 6, 10}},
                                         {2, 6, 0.95, {0, 1, 3, 6, 9, 10}}}) {
    SamplerOptions o = with(c.temperature, c.top_k);
    o.typical_p = c.typical_p;
    infer::probabilities(kTwelve, o, buffer, p);
    std::set<int32_t> ids;
    for (size_t i = 0; i < p.size(); ++i)
      if (p[i] > 0) ids.insert(static_cast<int32_t>(i));
    EXPECT_EQ(ids, c.ids) << text_of(o);
  }
}

// Of 12 ids with equals and one that cannot be drawn.
TEST(Sampler, DrawsFollowTheDistributionOfAllLimits) {
  const std::vector<float>& l = kTwelve;
  std::vector<int32_t> buffer;
  std::vector<double> p(l.size());
  for (const SamplerOptions& o : limits_of_sampling()) {
    SCOPED_TRACE(text_of(o));
    const std::vector<double> want = sampling_reference(l, o);
    infer::probabilities(l, o, buffer, p);
    for (size_t i = 0; i < l.size(); ++i) ASSERT_NEAR(p[i], want[i], 1e-14) << "id " << i;
    std::vector<int64_t> counts(l.size());
    for (uint64_t i = 0; i < 20000; ++i) ++counts[static_cast<size_t>(infer::sample(l, o, i, buffer))];
    expect_drawn_from(want, counts);
  }
}

// With a vocabulary of a size that is never sorted as a whole.
TEST(Sampler, TheDistributionOfManyIds) {
  std::vector<int32_t> buffer;
  for (const bool equals : {false, true}) {
    std::vector<float> l(20011);
    for (size_t i = 0; i < l.size(); ++i) {
      const double x = 3 * Rng(8).normal(i);
      l[i] = static_cast<float>(equals ? std::round(x) : x);
    }
    std::vector<double> p(l.size());
    const std::vector<SamplerOptions> limits = limits_of_sampling();
    for (size_t every = 0; every < limits.size(); every += 5) {
      const SamplerOptions& o = limits[every];
      const std::vector<double> want = sampling_reference(l, o);
      infer::probabilities(l, o, buffer, p);
      for (size_t i = 0; i < l.size(); ++i) ASSERT_NEAR(p[i], want[i], 1e-12) << text_of(o) << ", id " << i;
      for (uint64_t i = 0; i < 10; ++i) ASSERT_GT(p[static_cast<size_t>(infer::sample(l, o, i, buffer))], 0);
    }
  }
}

TEST(Sampler, RefusesWhatIsNoDistribution) {
  for (const double temperature : {0.0, 1.0}) {
    expect_error([&] { sample(std::vector<float>{1, NAN, 2}, with(temperature), 0); }, {"id 1", "nan"});
    expect_error([&] { sample(std::vector<float>{1, 2, INFINITY}, with(temperature), 0); }, {"id 2", "inf"});
    expect_error([&] { sample(std::vector<float>(3, -INFINITY), with(temperature), 0); }, {"no id of 3"});
  }
}

TEST(Sampler, APureFunctionOfSeedAndIndex) {
  std::vector<float> l(300);
  for (size_t i = 0; i < l.size(); ++i) l[i] = static_cast<float>(Rng(3).normal(i));
  int same_index = 0, same_seed = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(sample(l, with(1), i), sample(l, with(1), i));
    same_index += sample(l, with(1), i) == sample(l, with(1, 0, 1, 0, 2), i);
    same_seed += sample(l, with(1), i) == sample(l, with(1), i + 1);
  }
  EXPECT_LT(same_index, 20);
  EXPECT_LT(same_seed, 20);
}

TEST(Sampler, ImpossibleTokensAreNeverDrawn) {
  const std::vector<float> l = {0, -INFINITY, 0, -INFINITY};
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(sample(l, with(1), i) % 2, 0);
}

TEST(Sampler, HugeLogitsDoNotOverflow) {
  const std::vector<float> l = {3e38f, 1, 3e38f, -3e38f};
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(sample(l, with(0.7), i) % 2, 0);
}

// As the draw is defined: all ids in order, all sums in order.
int32_t drawn_in_order(std::span<const float> logits, const SamplerOptions& o, uint64_t index) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (o.top_k > 0 && o.top_k < static_cast<int64_t>(order.size())) order.resize(static_cast<size_t>(o.top_k));
  const double top = logits[static_cast<size_t>(order[0])];
  std::vector<double> p;
  double sum = 0;
  for (const int32_t id : order) {
    p.push_back(std::exp((logits[static_cast<size_t>(id)] - top) / o.temperature));
    sum += p.back();
  }
  size_t keep = 0;
  double mass = 0;
  while (keep < p.size() && (keep == 0 || (p[keep] > 0 && mass < o.top_p * sum && p[keep] >= o.min_p)))
    mass += p[keep++];
  double u = Rng(o.seed, 0x5a3b1e).uniform(index) * mass;
  for (size_t i = 0; i < keep; ++i) {
    u -= p[i];
    if (u < 0) return order[i];
  }
  return order[keep - 1];
}

// Smooth, with many equals (logits of bf16), peaked, and with ids that cannot be drawn.
std::vector<float> shaped_logits(int shape, size_t n) {
  std::vector<float> l(n);
  for (size_t i = 0; i < n; ++i) {
    const auto x = static_cast<float>(Rng(5).normal(i));
    l[i] = shape == 0 ? 3 * x : shape == 1 ? std::round(2 * x) / 2 : shape == 2 ? 12 * x : x;
    if (shape == 3 && i % 3 == 0) l[i] = -INFINITY;
  }
  return l;
}

TEST(Sampler, DrawsAsFromAllIdsInOrder) {
  std::vector<int32_t> buffer;  // one for all
  for (const size_t n : {size_t{1}, size_t{2}, size_t{63}, size_t{65}, size_t{1000}, size_t{20011}})
    for (int shape = 0; shape < 4; ++shape) {
      if (shape == 3 && n == 1) continue;
      const std::vector<float> l = shaped_logits(shape, n);
      for (const SamplerOptions& o :
           {with(1), with(0.3), with(30), with(1, 1), with(1, 40), with(0.8, 500), with(1, 0, 0.9), with(2, 0, 0.999),
            with(1, 0, 1, 0.02), with(0.7, 0, 1, 1e-9), with(1, 200, 0.95, 0.001), with(5, 0, 0.5, 0.1)})
        for (uint64_t index = 0; index < 25; ++index)
          ASSERT_EQ(infer::sample(l, o, index, buffer), drawn_in_order(l, o, index))
              << n << " logits of shape " << shape << ", draw " << index << ", temperature " << o.temperature
              << ", top-k " << o.top_k << ", top-p " << o.top_p << ", min-p " << o.min_p;
    }
}

// Equal logits: the share of the first two is top_p to the bit, which no sum in another order may decide.
TEST(Sampler, AShareThatIsReachedExactlyIsEnough) {
  const std::vector<float> equal(4, 1.5f);
  std::set<int32_t> drawn;
  for (uint64_t i = 0; i < 1000; ++i) drawn.insert(sample(equal, with(1, 0, 0.5), i));
  EXPECT_EQ(drawn, (std::set<int32_t>{0, 1}));
}

TEST(Sampler, TheLargestInOrder) {
  const std::vector<float> l = {1, 5, -2, 5, 7, 1};
  std::vector<int32_t> ids;
  infer::largest(l, 4, ids);
  EXPECT_EQ(std::vector<int32_t>(ids.begin(), ids.begin() + 4), (std::vector<int32_t>{4, 1, 3, 0}));
  infer::largest(l, 99, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{4, 1, 3, 0, 5, 2}));
}

TEST(Sampler, RefusesBadOptions) {
  for (const auto& [o, name] : std::vector<std::pair<SamplerOptions, const char*>>{{with(-1), "temp"},
                                                                                   {with(NAN), "temp"},
                                                                                   {with(INFINITY), "temp"},
                                                                                   {with(1, -1), "top-k"},
                                                                                   {with(1, 0, 0), "top-p"},
                                                                                   {with(1, 0, 1.1), "top-p"},
                                                                                   {with(1, 0, NAN), "top-p"},
                                                                                   {with(1, 0, 1, -0.1), "min-p"},
                                                                                   {with(1, 0, 1, 1.1), "min-p"}})
    expect_error([&, options = o] { infer::validate(options); }, {name}, ExitCode::usage);
  for (const double p : {0.0, 1.1, static_cast<double>(NAN)})
    expect_error([&] { infer::validate(with_typical(p)); }, {"typical-p", "(0, 1]"}, ExitCode::usage);
  infer::validate(with(0));
  infer::validate(with(2, 50, 0.9, 0.05));
}

}  // namespace
}  // namespace birkhoff::test
