#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/rng.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::sample;
using infer::SamplerOptions;

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
  infer::validate(with(0));
  infer::validate(with(2, 50, 0.9, 0.05));
}

}  // namespace
}  // namespace birkhoff::test
