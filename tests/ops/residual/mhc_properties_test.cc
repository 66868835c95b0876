// The properties of manifold-constrained hyper-connections that spec and paper promise (mhc.md 9), by number; those of
// their matrices alone are in sinkhorn_properties_test.cc.
#include "ops/residual/mhc_properties.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "support/site_run.h"

namespace birkhoff {
namespace {

using ops::HcConvention;
using ops::ResidualKind;
using ops::ResidualSpec;
using test::Owned;
using test::RandomSite;

TEST_P(Properties, P06_OneStreamIsAResidualWithAGate) {
  RandomSite site(mhc(1, 24), 9, 6);
  site.fn = Owned(site.spec.coefficients(), 24);  // phi = 0
  site.base.set(1, 0);                            // base_post = 0
  site.w.fn = site.fn, site.w.base = site.base;
  site.run(exec_, scratch_, Owned(9, 24));
  for (int64_t t = 0; t < 9; ++t) {
    EXPECT_NEAR(site.res.at(t), 1, 2.1e-6);
    EXPECT_NEAR(site.post.at(t), 1, 2 * 0x1p-24);
    for (int64_t c = 0; c < 24; ++c) EXPECT_NEAR(site.x_end.at(t, c), site.x.at(t, c) + site.y.at(t, c), 1e-5);
  }
}

TEST_P(Properties, P07_EqualStreamsRunThePlainPreNormNet) {
  constexpr int64_t T = 5, D = 16, kSites = 6;
  Owned plain = test::random(T, D, 7), wide(T, kN * D);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < kN * D; ++c) wide.set(t * kN * D + c, plain.at(t, c % D));
  for (const bool v4 : {true, false}) {
    Owned narrow = plain, state = wide;
    for (int64_t l = 0; l < kSites; ++l) {
      ResidualSpec s = mhc(kN, D), p;
      p.dim = D;
      s.convention = v4 ? HcConvention::v4 : HcConvention::paper, s.hc_eps = v4 ? kEps : 0.f;
      RandomSite site(s, T, 70 + static_cast<uint64_t>(l)), pre_norm(p, T, 70 + static_cast<uint64_t>(l));
      site.fn = Owned(s.coefficients(), kN * D), site.w.fn = site.fn;
      for (int64_t i = 0; i < kN; ++i) {
        site.base.set(kN + i, 0);
        // The norm that follows divides the sum of the read weights out, but for its epsilon: compare the nets for
        // reads that sum to one.
        site.base.set(i, std::log((1.0 / kN) / (1 - 1.0 / kN)));
      }
      site.x = state, pre_norm.x = narrow, pre_norm.W = site.W;
      for (int64_t i = 0; i < D; ++i) pre_norm.norm.set(i, site.norm.at(i));
      pre_norm.w.norm = pre_norm.norm;
      site.run(exec_, scratch_, Owned(T, kN * D));
      pre_norm.run(exec_, scratch_, Owned(T, D));
      state = site.x_end, narrow = pre_norm.x_end;
    }
    double worst = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t c = 0; c < kN * D; ++c) worst = std::max(worst, std::abs(state.at(t, c) - narrow.at(t, c % D)));
    EXPECT_LE(worst, (v4 ? 3e-5 + 1e-5 : 1e-5) * test::largest(narrow.values())) << v4;
  }
}

TEST_P(Properties, P08_PermutedStreamsGivePermutedStates) {
  constexpr int64_t T = 6, D = 12;
  constexpr int64_t kOrder[kN] = {2, 0, 3, 1};  // stream i of the second is stream kOrder[i] of the first
  RandomSite a(mhc(kN, D), T, 8), b(mhc(kN, D), T, 8);
  const auto coefficient = [&](int64_t i) {  // of the second, as one of the first
    if (i < 2 * kN) return i / kN * kN + kOrder[i % kN];
    return 2 * kN + kOrder[(i - 2 * kN) / kN] * kN + kOrder[(i - 2 * kN) % kN];
  };
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < kN * D; ++c) b.x.set(t * kN * D + c, a.x.at(t, kOrder[c / D] * D + c % D));
  for (int64_t i = 0; i < a.spec.coefficients(); ++i) {
    b.base.set(i, a.base.at(coefficient(i)));
    for (int64_t c = 0; c < kN * D; ++c) b.fn.set(i * kN * D + c, a.fn.at(coefficient(i), kOrder[c / D] * D + c % D));
  }
  a.run(exec_, scratch_, Owned(T, kN * D));
  b.run(exec_, scratch_, Owned(T, kN * D));
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < kN * D; ++c) EXPECT_NEAR(b.x_end.at(t, c), a.x_end.at(t, kOrder[c / D] * D + c % D), 2e-5);
}

TEST_P(Properties, P09_AConstantAddedToARowChangesNothing) {
  const Owned z = test::random(200, kN * kN, 9, 1), cotangent = test::random(200, kN * kN, 10);
  Owned shifted = z, dz(200, kN * kN);
  for (int64_t m = 0; m < 200; ++m)
    for (int64_t k = 0; k < kN; ++k) shifted.set(m * kN * kN + kN + k, z.at(m, kN + k) + 2.5);
  test::expect_close(sinkhorn(shifted).values(), sinkhorn(z).values(), 32 * 0x1p-24, "row shift");
  ops::sinkhorn_backward(exec_, HcConvention::v4, kN, 20, kEps, z, cotangent, dz);
  std::vector<double> others;
  for (int64_t m = 0; m < 200; ++m)
    for (int64_t i = 0; i < kN; ++i) {
      EXPECT_NEAR(line_sum(dz, m, i, true), 0, 64 * 0x1p-24) << "sum over the destinations of row " << i;
      others.push_back(std::abs(line_sum(dz, m, i, false)));
    }
  std::sort(others.begin(), others.end());
  EXPECT_LE(quantile(others, 0.5), 1e-4);  // only with convergence: median 3e-6 at this spread
}

TEST_P(Properties, P10_GradientsWithWideLogits) {
  for (const double sd : {1.0, 4.0, 8.0})
    for (const int iters : {1, 2, 20}) {
      ResidualSpec s = mhc(kN, 10);
      s.sinkhorn_iters = iters;
      RandomSite site(s, 2, 11, sd);
      const Owned cotangent = test::random(2, kN * 10, 12);
      site.run(exec_, scratch_, cotangent);
      const auto gradient =
          reference::complex_gradient(site.tensors, [&](const reference::Tensors<reference::Complex>& t) {
            return reference::dot(cotangent.values(), site.next_state(t));
          });
      // mhc.md 8.3: the fp32 walk back is good to 5.7e-7, 1.8e-6, 9e-6 of its input at sd 1, 4, 8; sums of up to 80 of
      // them follow.
      const double walk = 10 * (sd <= 1 ? 5.7e-7 : sd <= 4 ? 1.8e-6 : 9e-6) * sd;
      for (const auto& [name, got] : {std::pair{"x", &site.dx},
                                      {"fn", &site.d_fn},
                                      {"scale", &site.d_scale},
                                      {"base", &site.d_base},
                                      {"input_norm", &site.d_norm},
                                      {"W", &site.dW}}) {
        const auto& want = gradient.at(name);
        test::expect_close(got->values(), want, walk * std::max(1.0, test::largest(want)),
                           std::string(name) + " sd " + std::to_string(sd) + " T " + std::to_string(iters));
      }
    }
}

TEST_P(Properties, P11_TheTransposeMatters) {
  const Owned z = test::random(2000, kN * kN, 13, 4);
  Owned zt(2000, kN * kN);
  for (int64_t m = 0; m < 2000; ++m)
    for (int64_t i = 0; i < kN; ++i)
      for (int64_t j = 0; j < kN; ++j) zt.set(m * kN * kN + j * kN + i, z.at(m, i * kN + j));
  const Owned s = sinkhorn(z), st = sinkhorn(zt);
  std::vector<double> differences;
  for (int64_t m = 0; m < 2000; ++m)
    for (int64_t i = 0; i < kN; ++i)
      for (int64_t j = 0; j < kN; ++j) differences.push_back(std::abs(s.at(m, i * kN + j) - st.at(m, j * kN + i)));
  std::sort(differences.begin(), differences.end());
  EXPECT_NEAR(quantile(differences, 0.99), 4e-2, 3e-2);
  // And H is the transpose of what v4 stores: H X' with an asymmetric Z at a small spread.
  RandomSite site(mhc(kN, 6), 3, 14, 0.3);
  site.run(exec_, scratch_, Owned(3, kN * 6));
  const auto want = site.next_state(site.tensors);
  test::expect_close(site.x_end.values(), want, 2e-5, "state");
  double asymmetry = 0;
  for (int64_t k = 0; k < kN; ++k)
    for (int64_t j = 0; j < kN; ++j)
      asymmetry = std::max(asymmetry, std::abs(site.res.at(0, k * kN + j) - site.res.at(0, j * kN + k)));
  EXPECT_GT(asymmetry, 1e-2);
}

TEST_P(Properties, P12_TheSizeOfTheStateDoesNotMatterToTheMaps) {
  ResidualSpec s = mhc(kN, 16);
  s.norm_eps = 0;
  RandomSite a(s, 7, 15), b(s, 7, 15);
  for (int64_t i = 0; i < b.x.size(); ++i) b.x.set(i, 8 * a.x.at(i));  // a power of two: the same mantissas
  a.run(exec_, scratch_, Owned(7, kN * 16));
  b.run(exec_, scratch_, Owned(7, kN * 16));
  test::expect_close(a.pre.values(), b.pre.values(), 4 * 0x1p-24, "pre");
  test::expect_close(a.post.values(), b.post.values(), 4 * 0x1p-24, "post");
  test::expect_close(a.res.values(), b.res.values(), 4 * 0x1p-24, "res");
  // So the gradient that comes through the maps is orthogonal to the state: with H_pre X and H_post y out of the way
  // only H_res X is left, whose own part of x . dx is the loss itself.
  ResidualSpec only = mhc(kN, 16);
  only.norm_eps = 0, only.learn_pre = only.learn_post = false;
  RandomSite r(only, 7, 16);
  r.W = Owned(16, 16);
  const Owned cotangent = test::random(7, kN * 16, 17);
  r.run(exec_, scratch_, cotangent);
  for (int64_t t = 0; t < 7; ++t) {
    double along = 0, loss = 0;
    for (int64_t c = 0; c < kN * 16; ++c)
      along += r.x.at(t, c) * r.dx.at(t, c), loss += cotangent.at(t, c) * r.x_end.at(t, c);
    EXPECT_NEAR(along, loss, 2e-5 * std::max(1.0, std::abs(loss)));
  }
}

TEST_P(Properties, P13_ExtremeLogits) {
  Owned z(3, kN * kN);
  for (int64_t i = 0; i < kN * kN; ++i) {
    z.set(i, (i * 7) % 3 == 0 ? 1e4 : -1e4);
    z.set(kN * kN + i, i % kN == (i / kN) % 2 ? 1e4 : -1e4);  // rows 0 and 2, 1 and 3 point at the same column
    z.set(2 * kN * kN + i, i % kN == i / kN ? 1e4 : -1e4);
  }
  const Owned s = sinkhorn(z), cotangent = test::random(3, kN * kN, 18);
  Owned dz(3, kN * kN);
  for (const double v : s.values()) EXPECT_TRUE(std::isfinite(v));
  // Rows of H: columns of what is stored. A column no row points at is shaped by eps alone.
  for (int64_t i = 0; i < kN; ++i) EXPECT_NEAR(line_sum(s, 2, i, false), 1, 2e-6);
  for (int64_t i = 0; i < 2; ++i) EXPECT_NEAR(line_sum(s, 1, i, false), 1, 2e-6);
  ops::sinkhorn_backward(exec_, HcConvention::v4, kN, 20, kEps, z, cotangent, dz);
  for (const double v : dz.values()) EXPECT_TRUE(std::isfinite(v));
  for (int64_t i = 0; i < kN * kN; ++i) EXPECT_NEAR(dz.at(2, i), 0, 1e-6) << "saturated logits do not learn";
}

TEST_P(Properties, P14_TheSameBitsWhenComputedAgain) {
  for (const DType type : {DType::f32, DType::bf16}) {
    RandomSite a(mhc(kN, 40), 70, 19, 1, type), b(mhc(kN, 40), 70, 19, 1, type);
    const Owned cotangent = test::random(70, kN * 40, 20, 1, type);
    a.run(exec_, scratch_, cotangent);
    b.run(exec_, scratch_, cotangent);
    EXPECT_TRUE(a.x_end.same_bytes(b.x_end) && a.in.same_bytes(b.in) && a.dx.same_bytes(b.dx) &&
                a.d_fn.same_bytes(b.d_fn));
    // Opening the state that advance left gives the input that advance gave.
    Owned next(70, kN * 40, type), in(70, 40, type), again(70, 40, type);
    ops::SiteSaved first = ops::SiteSaved::take(scratch_, a.spec, 70),
                   second = ops::SiteSaved::take(scratch_, a.spec, 70);
    ops::site_advance(exec_, a.spec, {{a.w, a.saved}, a.x, a.y}, next, a.w, first, in, scratch_);
    ops::site_open(exec_, a.spec, a.w, next, second, again, scratch_);
    EXPECT_TRUE(next.same_bytes(a.x_end) && in.same_bytes(again));
    for (int64_t i = 0; i < 70 * a.spec.coefficients(); ++i) EXPECT_EQ(first.logits.f32()[i], second.logits.f32()[i]);
  }
}

TEST_P(Properties, P15_Range) {
  for (const double sd : {1.0, 8.0, 40.0}) {
    RandomSite site(mhc(kN, 16), 50, 21, sd);
    for (int64_t t = 0; t < 50; ++t)
      for (int64_t c = 0; c < kN * 16; ++c) site.x.set(t * kN * 16 + c, site.x.at(t, c % 16));  // equal streams
    site.W = Owned(16, 16);                                                                     // y = 0
    site.run(exec_, scratch_, Owned(50, kN * 16));
    for (const double h : site.pre.values()) EXPECT_TRUE(h > 0 && h <= 1 + 2e-6) << h;
    for (const double g : site.post.values()) EXPECT_TRUE(g >= 0 && g <= 2) << g;
    if (sd < 40)
      test::expect_close(site.x_end.values(), site.x.values(), 4e-6 * test::largest(site.x.values()),
                         "H X of equal streams");
  }
}

// What a closed gate leaves of V4's read is eps, which the values of open gates hide in their rounding.
TEST_P(Properties, AClosedReadIsEps) {
  for (const HcConvention convention : {HcConvention::v4, HcConvention::paper}) {
    ops::ResidualSpec spec = mhc(kN, 8);
    spec.convention = convention;
    spec.hc_eps = convention == HcConvention::v4 ? 1e-6f : 0.f;
    RandomSite site(spec, 5, 24, 0.3);
    for (int64_t i = 0; i < kN; ++i) site.base.set(i, -200);
    site.run(exec_, scratch_, Owned(5, kN * 8));
    for (const double h : site.pre.values()) EXPECT_EQ(h, spec.hc_eps);
  }
}

TEST_P(Properties, P17_SinglePrecisionIsEnough) {
  const reference::HyperConnection exact{reference::Residual::mhc, static_cast<size_t>(kN), 1};
  for (const double sd : {0.5, 2.0, 8.0}) {
    const Owned z = test::random(300, kN * kN, 22, sd), s = sinkhorn(z);
    std::vector<double> want;
    for (int64_t m = 0; m < 300; ++m) {
      std::vector<double> one;
      for (int64_t i = 0; i < kN * kN; ++i) one.push_back(z.at(m, i));
      const auto h = exact.sinkhorn(one);
      for (size_t j = 0; j < kN; ++j)
        for (size_t k = 0; k < kN; ++k) want.push_back(h[k * kN + j]);
    }
    test::expect_close(s.values(), want, 2 * 2.1e-7, "sd " + std::to_string(sd));
  }
}

TEST_P(Properties, P18_CoefficientsInTheOrderOfV4) {
  // pre 0..3, post 4..7, comb 8 + 4 j + k with j the source: one entry of base at a time moves just what it names.
  RandomSite site(mhc(kN, 8), 1, 23, 0.3);
  site.run(exec_, scratch_, Owned(1, kN * 8));
  const Owned pre = site.pre, post = site.post, res = site.res;
  for (int64_t i = 0; i < site.spec.coefficients(); ++i) {
    const double was = site.base.at(i);
    site.base.set(i, was + 1);
    site.run(exec_, scratch_, Owned(1, kN * 8));
    site.base.set(i, was);
    for (int64_t k = 0; k < kN; ++k) {
      EXPECT_EQ(site.pre.at(k) > pre.at(k), i == k);
      EXPECT_EQ(site.post.at(k) > post.at(k), i == kN + k);
    }
    if (i < 2 * kN) continue;
    const int64_t j = (i - 2 * kN) / kN, k = (i - 2 * kN) % kN;
    int64_t most = 0;
    for (int64_t e = 0; e < kN * kN; ++e)
      if (site.res.at(e) - res.at(e) > site.res.at(most) - res.at(most)) most = e;
    EXPECT_EQ(most, k * kN + j);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Properties, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

}  // namespace
}  // namespace birkhoff
