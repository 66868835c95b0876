// The properties that spec and paper promise of the matrices of mHC (mhc.md 9), by number.
#include <gtest/gtest.h>

#include "ops/residual/mhc_properties.h"

namespace birkhoff {
namespace {

using ops::HcConvention;
using test::Owned;

class SinkhornProperties : public Properties {};

// The v4 iteration ends with columns of the stored matrix, which are the rows of H: exact up to eps and rounding.
TEST_P(SinkhornProperties, P01_NonNegativeAndTheLastAxisIsExact) {
  for (const double sd : {0.5, 1.0, 2.0, 4.0, 8.0}) {
    const Owned s = sinkhorn(test::random(2000, kN * kN, 1, sd));
    for (const double v : s.values()) ASSERT_GE(v, 0);
    // eps in the denominator takes at most eps; four entries rounded to fp32 and one division each.
    EXPECT_LE(line_errors(s, false).back(), 1.1e-6 + 4 * 0x1p-24) << sd;
  }
}

TEST_P(SinkhornProperties, P02_TheOtherAxisConvergesWithTheSpread) {
  const auto errors = [&](double sd, int iters) {
    return line_errors(sinkhorn(test::random(20000, kN * kN, 2, sd), kN, iters), true);
  };
  // Published figures are maxima and quantiles over other draws: a factor of three either way.
  EXPECT_LE(errors(0.5, 20).back(), 3e-6);
  EXPECT_LE(quantile(errors(1, 20), 0.99), 1e-5);
  EXPECT_LE(errors(2, 20).back(), 0.12);
  const auto wide = errors(4, 20);
  EXPECT_LE(wide.back(), 0.2);
  EXPECT_NEAR(quantile(wide, 0.99), 4.3e-2, 3e-2);
  EXPECT_GT(quantile(errors(4, 5), 0.99), 3 * quantile(errors(4, 20), 0.99));  // more iterations, less error
  EXPECT_GT(quantile(errors(4, 20), 0.99), 2 * quantile(errors(4, 100), 0.99));
}

TEST_P(SinkhornProperties, P03_ContractionOfTheColumnRatio) {
  const int64_t draws = 4000;
  const Owned z = test::random(draws, kN * kN, 3, 1.5);
  const auto spread = [](const Owned& s, int64_t m) {  // log of the largest to the smallest column sum; rows come last
    double low = INFINITY, high = 0;
    for (int64_t i = 0; i < kN; ++i) {
      const double c = line_sum(s, m, i, false);
      low = std::min(low, c), high = std::max(high, c);
    }
    return std::log(high / low);
  };
  const Owned first = sinkhorn(z, kN, 1, HcConvention::paper);
  for (const int iters : {2, 3, 5, 10}) {
    const Owned later = sinkhorn(z, kN, iters, HcConvention::paper);
    for (int64_t m = 0; m < draws; ++m) {
      double delta = 0;
      for (int64_t i = 0; i < kN; ++i)
        for (int64_t j = 0; j < kN; ++j)
          for (int64_t a = 0; a < kN; ++a)
            for (int64_t b = 0; b < kN; ++b)
              delta = std::max(delta,
                               z.at(m, i * kN + a) + z.at(m, j * kN + b) - z.at(m, i * kN + b) - z.at(m, j * kN + a));
      const double kappa = std::tanh(delta / 4);
      ASSERT_LE(spread(later, m), std::pow(kappa, 2 * (iters - 1)) * spread(first, m) + 16 * 0x1p-24) << iters;
    }
  }
}

TEST_P(SinkhornProperties, P04_SpectralNorm) {
  const Owned s = sinkhorn(test::random(500, kN * kN, 4, 2));
  for (int64_t m = 0; m < 500; ++m) {
    double rows = 0, columns = 0;
    for (int64_t i = 0; i < kN; ++i)
      rows = std::max(rows, line_sum(s, m, i, true)), columns = std::max(columns, line_sum(s, m, i, false));
    std::vector<double> v(kN, 0.5), u(kN);  // power iteration on H^T H
    double norm = 0;
    for (int it = 0; it < 200; ++it) {
      for (int64_t i = 0; i < kN; ++i) {
        u[static_cast<size_t>(i)] = 0;
        for (int64_t j = 0; j < kN; ++j) u[static_cast<size_t>(i)] += s.at(m, i * kN + j) * v[static_cast<size_t>(j)];
      }
      double length = 0;
      for (int64_t j = 0; j < kN; ++j) {
        v[static_cast<size_t>(j)] = 0;
        for (int64_t i = 0; i < kN; ++i) v[static_cast<size_t>(j)] += s.at(m, i * kN + j) * u[static_cast<size_t>(i)];
        length += v[static_cast<size_t>(j)] * v[static_cast<size_t>(j)];
      }
      norm = std::sqrt(std::sqrt(length));
      for (double& x : v) x /= std::sqrt(length);
    }
    EXPECT_LE(norm, std::sqrt(rows * columns) + 1e-6);
    EXPECT_GE(norm, 1 - 2e-6);  // the constant vector keeps its size
  }
}

TEST_P(SinkhornProperties, P05_ProductsStayDoublyStochastic) {
  constexpr int64_t kSites = 60;
  const Owned s = sinkhorn(test::random(kSites, kN * kN, 5, 0.5));  // stored: H transposed
  std::vector<double> p(kN * kN);
  for (size_t i = 0; i < kN; ++i) p[i * kN + i] = 1;
  for (int64_t m = 0; m < kSites; ++m) {
    std::vector<double> next(kN * kN);
    for (size_t k = 0; k < kN; ++k)
      for (size_t j = 0; j < kN; ++j)
        for (size_t i = 0; i < kN; ++i) next[k * kN + i] += s.at(m, static_cast<int64_t>(j * kN + k)) * p[j * kN + i];
    p = next;
    for (size_t k = 0; k < kN; ++k) {
      double row = 0, column = 0;
      for (size_t i = 0; i < kN; ++i) row += p[k * kN + i], column += p[i * kN + k];
      EXPECT_NEAR(row, 1, static_cast<double>(m + 1) * (1.1e-6 + 4 * 0x1p-24));
      EXPECT_NEAR(column, 1, static_cast<double>(m + 1) * 4e-6);  // property 2 at this spread
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, SinkhornProperties, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

}  // namespace
}  // namespace birkhoff
