// Residual sites of every kind against the plain specification: values, and gradients by complex steps.
#include "ops/residual/residual.h"

#include <gtest/gtest.h>

#include "reference/complex_step.h"
#include "support/matrix.h"
#include "support/site_run.h"

namespace birkhoff {
namespace {

using ops::HcConvention;
using ops::ResidualKind;
using ops::ResidualSpec;
using test::Owned;
using test::RandomSite;

ResidualSpec spec_of(ResidualKind kind, int64_t streams, int64_t dim) {
  ResidualSpec s;
  s.kind = kind, s.streams = streams, s.dim = dim;
  return s;
}

// What is computed against what is specified. fp32: states pass some ten operations, each a rounding of terms that are
// at most a few units, and a parameter's gradient sums them over the tokens (a scale's over the maps' entries too).
// bf16: the state, what is read from it and every gradient of an activation are rounded to 8 bits.
void check(const ResidualSpec& spec, int64_t tokens, DType type, double logit_sd, const std::string& what) {
  RandomSite site(spec, tokens, 17, logit_sd, type);
  const Owned cotangent = test::random(tokens, spec.streams * spec.dim, 99, 1, type);
  Exec exec(2);
  Arena scratch(size_t{64} << 20);
  site.run(exec, scratch, cotangent);
  const double eps = (type == DType::f32 ? 0x1p-24 : 0x1p-9) * std::max(1.0, logit_sd);
  const auto limit = [&](const std::vector<double>& want, bool sum) {
    return 40 * eps * std::max(0.5, test::largest(want)) *
           (sum ? std::sqrt(static_cast<double>(tokens * spec.coefficients())) : 1.0);
  };
  const auto want = site.next_state(site.tensors);
  test::expect_close(site.x_end.values(), want, limit(want, false), what + " next state");
  const auto loss = [&](const reference::Tensors<reference::Complex>& t) {
    return reference::dot(cotangent.values(), site.next_state(t));
  };
  const auto gradient = reference::complex_gradient(site.tensors, loss, 24);
  const auto compare = [&](const char* name, const Owned& got) {
    const auto it = gradient.find(name);
    if (it == gradient.end()) return;
    std::vector<double> picked, expected;
    for (size_t i = 0; i < it->second.size(); ++i) {
      if (std::isnan(it->second[i])) continue;
      picked.push_back(got.at(static_cast<int64_t>(i)));
      expected.push_back(it->second[i]);
    }
    test::expect_close(picked, expected, limit(expected, std::string(name) != "x"), what + " d_" + name);
  };
  compare("x", site.dx);
  compare("W", site.dW);
  compare("input_norm", site.d_norm);
  compare("fn", site.d_fn);
  compare("scale", site.d_scale);
  compare("base", site.d_base);
  compare("norm", site.d_hc_norm);
}

ResidualSpec spec_of(ops::ResForm form, int64_t streams, int64_t dim) {
  ResidualSpec s = spec_of(ResidualKind::mhc, streams, dim);
  s.res_form = form;
  return s;
}

std::string name_of(const ResidualSpec& s) {
  const char* form = s.res_form == ops::ResForm::lite ? " lite" : s.res_form == ops::ResForm::kron ? " kron" : "";
  return std::string(s.kind == ResidualKind::plain ? "plain"
                     : s.kind == ResidualKind::hc  ? "hc"
                                                   : "mhc") +
         form + " n" + std::to_string(s.streams) + " D" + std::to_string(s.dim);
}

class Residual : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
};

TEST_P(Residual, EveryNumberOfStreams) {
  for (const ResidualKind kind : {ResidualKind::hc, ResidualKind::mhc})
    for (int64_t n = 1; n <= 8; ++n) check(spec_of(kind, n, 19), 3, DType::f32, 1, name_of(spec_of(kind, n, 19)));
}

TEST_P(Residual, EveryWidth) {
  for (const ResidualKind kind : {ResidualKind::plain, ResidualKind::hc, ResidualKind::mhc})
    for (const int64_t D : {2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64}) {
      const ResidualSpec s = spec_of(kind, kind == ResidualKind::plain ? 1 : 4, D);
      check(s, 2, DType::f32, 1, name_of(s));
    }
}

TEST_P(Residual, TokensAcrossBlocks) {
  for (const ResidualKind kind : {ResidualKind::plain, ResidualKind::mhc})
    for (const int64_t T : {1, 15, 16, 17, 63, 65, 130}) {
      const ResidualSpec s = spec_of(kind, kind == ResidualKind::plain ? 1 : 2, 6);
      check(s, T, DType::f32, 1, name_of(s) + " T" + std::to_string(T));
    }
}

TEST_P(Residual, PaperConventionAndIterations) {
  for (const HcConvention convention : {HcConvention::v4, HcConvention::paper})
    for (const int iters : {1, 2, 20}) {
      ResidualSpec s = spec_of(ResidualKind::mhc, 4, 12);
      s.convention = convention, s.sinkhorn_iters = iters;
      s.hc_eps = convention == HcConvention::v4 ? 1e-6f : 0.f;
      check(s, 3, DType::f32, 1,
            name_of(s) + (convention == HcConvention::v4 ? " v4 T" : " paper T") + std::to_string(iters));
    }
}

// The forms of H_res without iterations: streams, tokens, both conventions, fixed maps, wide logits, bf16.
TEST_P(Residual, FormsWithoutIterations) {
  const std::vector<ResidualSpec> all = {
      spec_of(ops::ResForm::lite, 1, 19), spec_of(ops::ResForm::lite, 2, 19), spec_of(ops::ResForm::lite, 3, 19),
      spec_of(ops::ResForm::lite, 4, 19), spec_of(ops::ResForm::lite, 5, 19), spec_of(ops::ResForm::kron, 1, 19),
      spec_of(ops::ResForm::kron, 2, 19), spec_of(ops::ResForm::kron, 4, 19), spec_of(ops::ResForm::kron, 8, 19)};
  for (const ResidualSpec& spec : all)
    for (const HcConvention convention : {HcConvention::v4, HcConvention::paper}) {
      ResidualSpec s = spec;
      s.convention = convention, s.hc_eps = convention == HcConvention::v4 ? 1e-6f : 0.f;
      check(s, 3, DType::f32, 1, name_of(s) + (convention == HcConvention::v4 ? " v4" : " paper"));
    }
  for (const ops::ResForm form : {ops::ResForm::lite, ops::ResForm::kron}) {
    for (const int64_t T : {1, 15, 16, 17, 63, 65})
      check(spec_of(form, 4, 6), T, DType::f32, 1, name_of(spec_of(form, 4, 6)) + " T" + std::to_string(T));
    for (const double sd : {4.0, 8.0})
      check(spec_of(form, 4, 12), 3, DType::f32, sd, name_of(spec_of(form, 4, 12)) + " wide logits");
    for (int fixed = 0; fixed < 8; ++fixed) {
      ResidualSpec s = spec_of(form, 4, 10);
      s.learn_pre = fixed & 1, s.learn_post = fixed & 2, s.learn_res = fixed & 4;
      check(s, 4, DType::f32, 1, name_of(s) + " learned " + std::to_string(fixed));
    }
    check(spec_of(form, 4, 33), 5, DType::bf16, 1, name_of(spec_of(form, 4, 33)) + " bf16");
  }
}

TEST_P(Residual, FixedMaps) {
  for (const ResidualKind kind : {ResidualKind::hc, ResidualKind::mhc})
    for (int fixed = 0; fixed < 8; ++fixed) {
      ResidualSpec s = spec_of(kind, 3, 10);
      s.learn_pre = fixed & 1, s.learn_post = fixed & 2, s.learn_res = fixed & 4;
      check(s, 4, DType::f32, 1, name_of(s) + " learned " + std::to_string(fixed));
    }
}

TEST_P(Residual, StaticHyperConnections) {
  ResidualSpec s = spec_of(ResidualKind::hc, 4, 10);
  s.dynamic = false;
  check(s, 5, DType::f32, 1, "static");
}

TEST_P(Residual, StoredInBf16) {
  for (const ResidualKind kind : {ResidualKind::plain, ResidualKind::hc, ResidualKind::mhc})
    for (const int64_t D : {16, 33}) {
      const ResidualSpec s = spec_of(kind, kind == ResidualKind::plain ? 1 : 4, D);
      check(s, 5, DType::bf16, 1, name_of(s) + " bf16");
    }
}

// Expanding copies the embedding, so its backward sums the streams: <dX, expand(e)> = <sum of dX, e>, by complex steps.
TEST_P(Residual, ExpandingAndItsGradient) {
  Exec exec(2);
  for (const DType type : {DType::f32, DType::bf16})
    for (int64_t n = 1; n <= 8; ++n)
      for (const int64_t dim : {1, 7, 8, 9, 17, 33}) {
        const ResidualSpec spec = spec_of(ResidualKind::mhc, n, dim);
        const Owned e = test::random(3, dim, 1, 1, type), dx = test::random(3, n * dim, 2, 1, type);
        Owned x(3, n * dim, type), de = test::random(3, dim, 3, 1, type);
        ops::expand_forward(exec, spec, e, x);
        ops::expand_backward(exec, spec, dx, de);
        const auto copies = [&](const auto& z) {
          std::remove_const_t<std::remove_reference_t<decltype(z)>> out;
          for (size_t i = 0; i < 3 * static_cast<size_t>(n * dim); ++i)
            out.push_back(
                z[i / static_cast<size_t>(n * dim) * static_cast<size_t>(dim) + i % static_cast<size_t>(dim)]);
          return out;
        };
        EXPECT_EQ(x.values(), copies(e.values()));
        const auto want =
            reference::complex_step(e.values(), [&](const auto& z) { return reference::dot(dx.values(), copies(z)); });
        // n values summed in fp32, then one rounding to the 8 bits of bf16: half a unit in the last place of the
        // result.
        const double stored = type == DType::f32 ? 0 : 0x1p-8 * test::largest(want);
        test::expect_close(de.values(), want, test::sum_tolerance(n, test::largest(dx.values())) + stored,
                           "d_embedding");
      }
}

TEST_P(Residual, NoTokens) {
  RandomSite site(spec_of(ResidualKind::mhc, 4, 8), 0, 1);
  Exec exec(2);
  Arena scratch(size_t{1} << 22);
  site.run(exec, scratch, Owned(0, 32));
  for (const double g : site.d_fn.values()) EXPECT_EQ(g, 0);
}

TEST_P(Residual, SameBitsOnOneAndThreeThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const ops::ResForm form : {ops::ResForm::sinkhorn, ops::ResForm::lite, ops::ResForm::kron}) {
      const ResidualSpec s = spec_of(form, 4, 48);
      RandomSite one(s, 300, 5, 1, type), three(s, 300, 5, 1, type);
      const Owned cotangent = test::random(300, 4 * 48, 6, 1, type);
      Arena scratch(size_t{64} << 20);
      one.run(Exec(1), scratch, cotangent);
      three.run(Exec(3), scratch, cotangent);
      EXPECT_TRUE(one.x_end.same_bytes(three.x_end) && one.in.same_bytes(three.in) && one.dx.same_bytes(three.dx));
      EXPECT_TRUE(one.d_fn.same_bytes(three.d_fn) && one.d_scale.same_bytes(three.d_scale) &&
                  one.d_base.same_bytes(three.d_base) && one.d_norm.same_bytes(three.d_norm));
    }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Residual, testing::ValuesIn(test::machine_isas()),
                         [](const auto& i) { return isa_name(i.param); });

}  // namespace
}  // namespace birkhoff
