// Student's t against published tables, and means, errors and paired intervals worked out by hand.
#include "lab/compare/statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace birkhoff::lab {
namespace {

TEST(Statistics, StudentQuantilesOfTheTables) {
  // Two-sided 95 % and others; Abramowitz & Stegun table 26.10, with the digits of closed forms where there are any.
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.706204736174704, 1e-9);  // tan(0.475 pi)
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.302652729911275, 1e-9);   // (2p - 1) sqrt(2 / (4 p (1 - p)))
  EXPECT_NEAR(student_t_quantile(0.975, 3), 3.182446, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 4), 2.776445, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.95, 5), 2.015048, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.995, 10), 3.169273, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.042272, 1e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 1e7), 1.959964, 1e-5);  // the normal distribution
}

TEST(Statistics, QuantileAndDistributionAreInverse) {
  for (const double df : {1.0, 2.0, 3.0, 7.0, 29.0, 200.0})
    for (const double p : {0.001, 0.05, 0.5, 0.7, 0.975, 0.9999})
      EXPECT_NEAR(student_t_cdf(student_t_quantile(p, df), df), p, 1e-11) << df << " " << p;
}

TEST(Statistics, DistributionIsCauchyForOneDegree) {
  for (const double t : {-20.0, -1.0, 0.0, 0.3, 5.0})
    EXPECT_NEAR(student_t_cdf(t, 1), 0.5 + std::atan(t) / M_PI, 1e-13) << t;
}

TEST(Statistics, DistributionOfTwoDegreesHasAClosedForm) {
  for (const double t : {-3.0, -0.5, 0.0, 1.0, 8.0})
    EXPECT_NEAR(student_t_cdf(t, 2), 0.5 + t / (2 * std::sqrt(2 + t * t)), 1e-13) << t;
}

TEST(Statistics, MeanAndStandardError) {
  const Mean m = mean_of({1, 2, 3, 6});
  EXPECT_EQ(m.n, 4);
  EXPECT_DOUBLE_EQ(m.mean, 3);
  EXPECT_DOUBLE_EQ(m.deviation, std::sqrt(14.0 / 3));
  EXPECT_DOUBLE_EQ(m.error, std::sqrt(14.0 / 3) / 2);
}

TEST(Statistics, OneValueHasNoErrorAndNoneNoMean) {
  EXPECT_DOUBLE_EQ(mean_of({2.5}).mean, 2.5);
  EXPECT_TRUE(std::isnan(mean_of({2.5}).error));
  EXPECT_TRUE(std::isnan(mean_of({}).mean));
}

TEST(Statistics, PairedDifferenceIsOfThePairs) {
  // Differences 0.1, 0.2, 0.3: mean 0.2, error 0.1 / sqrt(3), t of two degrees 4.302653.
  const Difference d = paired_difference({1.0, 2.0, 3.0}, {1.1, 2.2, 3.3});
  EXPECT_NEAR(d.mean.mean, 0.2, 1e-12);
  EXPECT_NEAR(d.mean.error, 0.1 / std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(d.low, 0.2 - 4.302652729911275 * 0.1 / std::sqrt(3.0), 1e-9);
  EXPECT_NEAR(d.high, 0.2 + 4.302652729911275 * 0.1 / std::sqrt(3.0), 1e-9);
  // What pairs have in common does not widen the interval: the values spread over 2, the differences over 0.2.
  EXPECT_LT(d.high - d.low, 0.6);
}

TEST(Statistics, OnePairHasNoInterval) {
  const Difference d = paired_difference({2.0}, {1.5});
  EXPECT_DOUBLE_EQ(d.mean.mean, -0.5);
  EXPECT_TRUE(std::isnan(d.low) && std::isnan(d.high));
}

TEST(Statistics, PairsMustMatch) { EXPECT_THROW(paired_difference({1, 2}, {1}), ContractViolation); }

TEST(Statistics, Combinations) {
  EXPECT_EQ(combinations(8, 2), 28);
  EXPECT_EQ(combinations(16, 4), 1820);
  EXPECT_EQ(combinations(32, 8), 10518300);
  EXPECT_NEAR(combinations(64, 16), 488526937079580, 1);  // DeepSeekMoE's example is C(64, 8) = 4,426,165,368
  EXPECT_EQ(combinations(64, 8), 4426165368);
  EXPECT_EQ(combinations(5, 0), 1);
  EXPECT_EQ(combinations(3, 4), 0);
}

}  // namespace
}  // namespace birkhoff::lab
