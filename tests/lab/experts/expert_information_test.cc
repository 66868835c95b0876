// Mutual information against tables computed by hand, and its shuffled baseline.
#include "lab/experts/expert_information.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace birkhoff {
namespace {

using lab::mutual_information;
using lab::Unit;
using lab::UnitLoads;

TEST(MutualInformation, IndependentIsZero) {
  EXPECT_NEAR(mutual_information(std::vector<double>{1, 2, 5, 3, 6, 15}, 2, 3), 0, 1e-15);
  EXPECT_NEAR(mutual_information(std::vector<double>{7, 7, 7, 7}, 4, 1), 0, 1e-15);
}

TEST(MutualInformation, OneDomainAnExpertIsTheNumberOfDomains) {
  EXPECT_NEAR(mutual_information(std::vector<double>{4, 0, 0, 9}, 2, 2), 1, 1e-15);
  std::vector<double> five(5 * 10);
  for (size_t d = 0; d < 5; ++d) five[d * 10 + 2 * d] = 3, five[d * 10 + 2 * d + 1] = 1 + static_cast<double>(d);
  EXPECT_NEAR(mutual_information(five, 5, 10), std::log2(5.0), 1e-14);
}

TEST(MutualInformation, ByHand) {
  // p(e|d) is 3/4, 1/4 and 1/4, 3/4 with even marginals: 1 - H(1/4) = 1 - (2 - 3/4 log2 3).
  EXPECT_NEAR(mutual_information(std::vector<double>{3, 1, 1, 3}, 2, 2), 0.75 * std::log2(3.0) - 1, 1e-15);
  // p(e) = 3/4, 1/4: 1/2 log2(4/3) + 1/4 log2(2/3) + 1/4 log2 2.
  EXPECT_NEAR(mutual_information(std::vector<double>{8, 0, 5, 5}, 2, 2),
              0.5 * std::log2(4.0 / 3) + 0.25 * std::log2(2.0 / 3) + 0.25, 1e-15);
}

TEST(MutualInformation, DomainsWeighTheSameWhateverTheirSize) {
  const double few = mutual_information(std::vector<double>{3, 1, 2, 5}, 2, 2),
               many = mutual_information(std::vector<double>{3000, 1000, 2, 5}, 2, 2);
  EXPECT_NEAR(few, many, 1e-15);
  EXPECT_GT(few, 0.01);
  EXPECT_THROW(mutual_information(std::vector<double>{1, 1, 0, 0}, 2, 2),
               ContractViolation);  // a domain without tokens
}

// Two layers of two experts. In the first each domain has its own expert, in the second all are even.
UnitLoads units(int64_t of_each) {
  UnitLoads u{2, 2, 2, {}};
  for (int64_t i = 0; i < 2 * of_each; ++i) u.units.push_back(i % 2 ? Unit{1, {0, 8, 4, 4}} : Unit{0, {8, 0, 4, 4}});
  return u;
}

TEST(ShuffledInformation, LayersAndUnits) {
  const UnitLoads u = units(20);
  const auto bits = lab::information(u);
  ASSERT_EQ(bits.size(), 2u);
  EXPECT_NEAR(bits[0], 1, 1e-15);
  EXPECT_NEAR(bits[1], 0, 1e-15);
  const auto shuffled = lab::shuffled_information(u, 100, 7);
  // With k of domain 0's 20 units its own, I is 1 - H(k/20): sharing evenly is likely, 1 bit all but impossible.
  EXPECT_GT(shuffled[0].mean, 0);
  EXPECT_LT(shuffled[0].mean, 0.06);
  EXPECT_LE(shuffled[0].mean, shuffled[0].high);
  EXPECT_LE(shuffled[0].high, shuffled[0].max);
  EXPECT_LT(shuffled[0].max, 0.5);
  for (const double v : {shuffled[1].mean, shuffled[1].high, shuffled[1].max}) EXPECT_NEAR(v, 0, 1e-15);
}

TEST(ShuffledInformation, OneUnitADomainTellsNothing) {
  const auto s = lab::shuffled_information(units(1), 30, 0)[0];
  EXPECT_NEAR(s.mean, 1, 1e-14);  // exchanging two labels changes no table
  EXPECT_NEAR(s.max, 1, 1e-14);
}

TEST(ShuffledInformation, TheSeedDecides) {
  const UnitLoads u = units(9);
  const auto a = lab::shuffled_information(u, 50, 3), again = lab::shuffled_information(u, 50, 3),
             other = lab::shuffled_information(u, 50, 4);
  EXPECT_EQ(a[0].mean, again[0].mean);
  EXPECT_EQ(a[0].high, again[0].high);
  EXPECT_NE(a[0].mean, other[0].mean);
}

TEST(ShuffledInformation, HighIsTheValueThatNineteenOfTwentyDoNotExceed) {
  const UnitLoads u = units(9);
  const auto one = lab::shuffled_information(u, 1, 3)[0];
  EXPECT_EQ(one.mean, one.high);
  EXPECT_EQ(one.high, one.max);
  const auto twenty = lab::shuffled_information(u, 20, 3)[0];
  EXPECT_LE(twenty.high, twenty.max);
}

}  // namespace
}  // namespace birkhoff
