// Property 16 of the specification of mHC: gains of single sites and of their product, per token.
#include "train/gains.h"

#include "ops/residual/residual.h"
#include "ops/residual/sinkhorn.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using test::Owned;
using train::GainMeter;

TEST(Gains, OfMatricesByHand) {
  // Two tokens, two streams. Token 0: a swap, then halving of stream 0. Token 1: everything into stream 0, then
  // identity.
  GainMeter meter(2, 2);
  meter.add_site(Owned(2, 4, {0, 1, 1, 0, /**/ 1, 1, 0, 0}));
  meter.add_site(Owned(2, 4, {0.5, 0, 0, 1, /**/ 1, 0, 0, 1}));
  const auto f = meter.forward(), b = meter.backward();
  EXPECT_EQ(f.site, (std::vector<double>{(1 + 2) / 2.0, 1}));
  EXPECT_EQ(b.site, (std::vector<double>{1, 1}));
  // Products: [[0, .5], [1, 0]] and [[1, 1], [0, 0]]: later sites on the left.
  EXPECT_DOUBLE_EQ(f.max_mean, (1 + 2) / 2.0);
  EXPECT_DOUBLE_EQ(f.max_max, 2);
  EXPECT_DOUBLE_EQ(f.min_mean, (0.5 + 0) / 2.0);
  EXPECT_DOUBLE_EQ(f.min_min, 0);
  EXPECT_DOUBLE_EQ(b.max_max, 1);
  EXPECT_DOUBLE_EQ(b.min_mean, (0.5 + 1) / 2.0);
}

TEST(Gains, SumsCountBySizeAndTheOrderOfSitesMatters) {
  GainMeter meter(1, 2), other(1, 2);
  const Owned a(1, 4, {2, -3, 0, 1}), b(1, 4, {1, 0, 5, 1});
  meter.add_site(a);
  meter.add_site(b);
  other.add_site(b);
  other.add_site(a);
  EXPECT_EQ(meter.forward().site[0], 1) << "|2 - 3| and |0 + 1|";
  EXPECT_EQ(meter.backward().site[0], 2);
  EXPECT_EQ(meter.forward().max_max, 4) << "b a = [[2, -3], [10, -14]]";
  EXPECT_EQ(other.forward().max_max, 16) << "a b = [[-13, -3], [5, 1]]";
}

// Sixty sites with logits of standard deviation 1: rows of H sum to 1 within 1.1e-6 a site, so forward is 1; backward
// stays near it.
TEST(Gains, OfADeepStackOfDoublyStochasticMaps) {
  const Exec exec(1);
  constexpr int64_t T = 32, n = 4, kSites = 60;
  GainMeter meter(T, n);
  for (uint64_t s = 0; s < kSites; ++s) {
    const Owned z = test::random(T, n * n, s + 1);
    Owned stored(T, n * n), res(T, n * n);
    ops::sinkhorn_forward(exec, ops::HcConvention::v4, n, 20, 1e-6f, z, stored);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t k = 0; k < n; ++k)
        for (int64_t j = 0; j < n; ++j) res.set(t * n * n + k * n + j, stored.at(t, j * n + k));  // H = S^T
    meter.add_site(res);
  }
  const auto f = meter.forward(), b = meter.backward();
  ASSERT_EQ(f.site.size(), static_cast<size_t>(kSites));
  for (double g : f.site) EXPECT_NEAR(g, 1, 1.1e-6);
  EXPECT_NEAR(f.max_max, 1, kSites * 1.1e-6);
  EXPECT_NEAR(f.min_min, 1, kSites * 1.1e-6);
  EXPECT_GE(b.max_mean, 1 - 1e-4);
  EXPECT_LE(b.max_max, 2.0);
  EXPECT_GE(b.min_min, 0.2);
}

}  // namespace
}  // namespace birkhoff
