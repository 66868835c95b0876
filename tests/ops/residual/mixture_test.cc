// H_res without iterations, as a mixture of permutations (mHC-lite) and as a Kronecker product (KromHC): values and
// gradients against the plain specification, sums of rows and columns, extreme logits.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/residual/residual.h"
#include "ops/residual/sinkhorn.h"
#include "reference/complex_step.h"
#include "reference/hyper_connection.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using ops::ResForm;
using test::Owned;

struct Case {
  ResForm form;
  int64_t n;
  int64_t logits() const { return ops::res_logits(form, n); }
  std::string name() const { return (form == ResForm::lite ? "lite n" : "kron n") + std::to_string(n); }
  // The matrix as it is stored.
  template <class S>
  std::vector<S> specified(const std::vector<S>& z) const {
    reference::HyperConnection h{reference::Residual::mhc, static_cast<size_t>(n), 1};
    h.v4 = false;
    h.form = form == ResForm::lite ? reference::Form::lite : reference::Form::kron;
    return h.mixing(z);
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int64_t n = 1; n <= ops::kMaxLiteStreams; ++n) all.push_back({ResForm::lite, n});
  for (const int64_t n : {1, 2, 4, 8}) all.push_back({ResForm::kron, n});
  return all;
}

std::vector<double> row(const Owned& m, int64_t t, int64_t cols) {
  std::vector<double> v;
  for (int64_t i = 0; i < cols; ++i) v.push_back(m.at(t, i));
  return v;
}

class Mixture : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
  Owned forward(const Case& c, const Owned& z, int64_t tokens) {
    Owned out(tokens, c.n * c.n);
    ops::mixture_forward(exec_, c.form, c.n, z, out);
    return out;
  }
  Exec exec_{2};
};

TEST_P(Mixture, NumberOfLogits) {
  std::vector<int64_t> counts;
  for (const Case& c : cases()) counts.push_back(c.logits());
  EXPECT_EQ(counts, (std::vector<int64_t>{1, 2, 6, 24, 120, 0, 2, 4, 6}));
}

// fp32 rounds a logit's distance from the largest one: |d| u e^-d is at most u / e. A sum of n! weights follows, or a
// product of three.
TEST_P(Mixture, ValuesAndGradients) {
  for (const Case& c : cases())
    for (const double sd : {1.0, 4.0, 8.0})
      for (const int64_t tokens : {0, 1, 7, 8, 9, 15, 16, 17, 33}) {
        SCOPED_TRACE(c.name() + " sd " + std::to_string(sd) + " T" + std::to_string(tokens));
        const Owned z = test::random(tokens, c.logits(), 1, sd), cotangent = test::random(tokens, c.n * c.n, 2);
        const Owned out = forward(c, z, tokens);
        Owned dz = test::random(tokens, c.logits(), 3);  // assigned
        ops::mixture_backward(exec_, c.form, c.n, z, cotangent, dz);
        const double size = test::largest(cotangent.values());
        for (int64_t t = 0; t < tokens; ++t) {
          const auto logits = row(z, t, c.logits()), d = row(cotangent, t, c.n * c.n);
          test::expect_close(row(out, t, c.n * c.n), c.specified(logits), test::sum_tolerance(c.logits(), 1), "value");
          const auto want =
              reference::complex_step(logits, [&](const auto& x) { return reference::dot(d, c.specified(x)); });
          test::expect_close(row(dz, t, c.logits()), want, test::sum_tolerance(c.n * c.n, size), "gradient");
        }
      }
}

// Exactly doubly stochastic but for rounding: the sum of k non-negative numbers that is divided by another order of the
// same sum is off by at most 2 (k - 1) roundings, mostly by a few.
TEST_P(Mixture, RowsAndColumnsSumToOne) {
  constexpr int64_t kDraws = 3000;
  for (const Case& c : cases())
    for (const double sd : {1.0, 4.0, 8.0, 40.0}) {
      const Owned m = forward(c, test::random(kDraws, c.logits(), 4, sd), kDraws);
      for (const double v : m.values()) ASSERT_GE(v, 0);
      double worst = 0, mean = 0;
      for (int64_t t = 0; t < kDraws; ++t)
        for (int64_t a = 0; a < c.n; ++a) {
          double across = 0, down = 0;
          for (int64_t b = 0; b < c.n; ++b) across += m.at(t, a * c.n + b), down += m.at(t, b * c.n + a);
          worst = std::max({worst, std::abs(across - 1), std::abs(down - 1)});
          mean += (std::abs(across - 1) + std::abs(down - 1)) / static_cast<double>(2 * c.n * kDraws);
        }
      EXPECT_LE(worst, 2 * std::sqrt(static_cast<double>(std::max<int64_t>(c.logits(), 4))) * 0x1p-23)
          << c.name() << " sd " << sd;
      EXPECT_LE(mean, 2 * 0x1p-23) << c.name() << " sd " << sd;
    }
}

// A constant added to all logits that share a softmax changes nothing, so their gradients sum to zero.
TEST_P(Mixture, ShiftedLogits) {
  constexpr int64_t kDraws = 50;
  for (const Case& c : cases()) {
    const Owned z = test::random(kDraws, c.logits(), 5, 2), cotangent = test::random(kDraws, c.n * c.n, 6);
    Owned shifted = z, dz = z;
    for (int64_t i = 0; i < z.size(); ++i)
      shifted.set(i, z.at(i) + (c.form == ResForm::lite ? 2.5 : 1.5 * static_cast<double>(i % c.logits() / 2)));
    test::expect_close(forward(c, shifted, kDraws).values(), forward(c, z, kDraws).values(), 32 * 0x1p-24, c.name());
    ops::mixture_backward(exec_, c.form, c.n, z, cotangent, dz);
    const int64_t group = c.form == ResForm::lite ? c.logits() : 2;
    for (int64_t i = 0; i < z.size(); i += group) {
      double sum = 0;
      for (int64_t k = 0; k < group; ++k) sum += dz.at(i + k);
      EXPECT_NEAR(sum, 0, test::sum_tolerance(group, test::largest(cotangent.values()))) << c.name();
    }
  }
}

// One logit far above the others makes one permutation: the first is the identity, the second of mHC-lite swaps the
// last two streams, the last reverses all; the swap of KromHC's first factor exchanges the halves, that of its last one
// neighbours.
TEST_P(Mixture, SaturatedLogitsArePermutations) {
  const auto picked = [&](const Case& c, const std::vector<int64_t>& high) {
    Owned z(1, c.logits()), dz(1, c.logits());
    for (int64_t i = 0; i < z.size(); ++i) z.set(i, std::count(high.begin(), high.end(), i) ? 1e4 : -1e4);
    const Owned m = forward(c, z, 1), cotangent = test::random(1, c.n * c.n, 7);
    ops::mixture_backward(exec_, c.form, c.n, z, cotangent, dz);
    for (const double v : dz.values()) EXPECT_NEAR(v, 0, 1e-6) << c.name() << ": saturated logits do not learn";
    std::vector<int64_t> to;
    for (int64_t a = 0; a < c.n; ++a)
      for (int64_t b = 0; b < c.n; ++b) {
        EXPECT_TRUE(m.at(a * c.n + b) == 0 || m.at(a * c.n + b) == 1) << c.name();
        if (m.at(a * c.n + b) == 1) to.push_back(b);
      }
    return to;
  };
  using List = std::vector<int64_t>;
  const Case lite{ResForm::lite, 4}, kron{ResForm::kron, 8};
  EXPECT_EQ(picked(lite, {0}), (List{0, 1, 2, 3}));
  EXPECT_EQ(picked(lite, {1}), (List{0, 1, 3, 2}));
  EXPECT_EQ(picked(lite, {9}), (List{1, 2, 3, 0}));
  EXPECT_EQ(picked(lite, {23}), (List{3, 2, 1, 0}));
  EXPECT_EQ(picked(kron, {0, 2, 4}), (List{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(picked(kron, {1, 2, 4}), (List{4, 5, 6, 7, 0, 1, 2, 3}));
  EXPECT_EQ(picked(kron, {0, 2, 5}), (List{1, 0, 3, 2, 5, 4, 7, 6}));
}

TEST_P(Mixture, SizesWithoutAFormAreRefused) {
  EXPECT_THROW(ops::res_logits(ResForm::lite, 6), ContractViolation);
  EXPECT_THROW(ops::res_logits(ResForm::kron, 6), ContractViolation);
  EXPECT_THROW(ops::res_logits(ResForm::sinkhorn, 9), ContractViolation);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Mixture, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

}  // namespace
}  // namespace birkhoff
