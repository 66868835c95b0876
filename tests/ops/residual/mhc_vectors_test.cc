// Hyper-connections against the float64 operator vectors: Sinkhorn, sites of both conventions, unconstrained HC, the
// head; values and VJPs.
#include <gtest/gtest.h>

#include "ops/residual/residual.h"
#include "ops/residual/residual_backward.h"
#include "ops/residual/sinkhorn.h"
#include "support/golden.h"
#include "support/matrix.h"
#include "support/site_run.h"

namespace birkhoff {
namespace {

using test::golden;
using test::Owned;

const io::SafetensorsFile& file() { return test::golden_file("vectors/mhc_vectors.safetensors"); }
constexpr int kStreams[] = {1, 2, 4, 8};

Owned load(const std::string& name, int64_t rows, int64_t cols) { return Owned(rows, cols, golden(file(), name)); }

// fp32 limits (mhc.md 8.3, 9.17): values 2.1e-7 at any spread; gradients 5.7e-7, 1.8e-6, 9e-6 at sd 1, 4, 8 for one
// multiply-back walk. Six times those for other orders of summation, times the size of the gradient.
double dz_limit(double sd, double size) {
  return 6 * (sd <= 1 ? 5.7e-7 : sd <= 4 ? 1.8e-6 : 9e-6) * std::max(1.0, size);
}

class Vectors : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
  Exec exec_{2};
  Arena scratch_{size_t{8} << 20};
};

TEST_P(Vectors, Sinkhorn) {
  for (const int n : kStreams) {
    for (const char* sd : {"0.5", "1", "2", "4", "8"}) {
      const std::string base = "sinkhorn.n" + std::to_string(n) + ".sd" + sd;
      const Owned z = load(base + ".z", 16, n * n), cotangent = load(base + ".cotangent", 16, n * n);
      for (const auto& [name, convention] :
           {std::pair{"v4", ops::HcConvention::v4}, {"paper", ops::HcConvention::paper}}) {
        for (const int iters : {1, 2, 20}) {
          const std::string key = base + "." + name + ".T" + std::to_string(iters);
          Owned out(16, n * n), dz(16, n * n);
          const float eps = convention == ops::HcConvention::v4 ? 1e-6f : 0.f;
          ops::sinkhorn_forward(exec_, convention, n, iters, eps, z, out);
          test::expect_close(out.values(), golden(file(), key + ".out"), 6 * 2.1e-7, key);
          ops::sinkhorn_backward(exec_, convention, n, iters, eps, z, cotangent, dz);
          const auto want = golden(file(), key + ".dz");
          test::expect_close(dz.values(), want, dz_limit(std::atof(sd), test::largest(want)), key + " dz");
        }
      }
    }
  }
}

std::vector<double> transposed(const std::vector<double>& m, int64_t n) {  // of every n x n matrix in the list
  std::vector<double> out(m.size());
  const auto nn = static_cast<size_t>(n);
  for (size_t b = 0; b < m.size() / (nn * nn); ++b)
    for (size_t i = 0; i < nn; ++i)
      for (size_t j = 0; j < nn; ++j) out[(b * nn + j) * nn + i] = m[(b * nn + i) * nn + j];
  return out;
}

// Relative to the largest value: sums of up to n*D products through four roundings of fp32 and the Sinkhorn walk.
// terms: size of what cancels in the value, where that is more than the value.
void expect_like(const std::vector<double>& got, const std::string& key, double terms = 1e-2) {
  const auto want = golden(file(), key);
  test::expect_close(got, want, 2e-5 * std::max(terms, test::largest(want)), key);
}

TEST_P(Vectors, Sites) {
  for (const auto& [name, convention] : {std::pair{"v4", ops::HcConvention::v4}, {"paper", ops::HcConvention::paper}}) {
    for (const int n : kStreams) {
      const std::string key = std::string("site.") + name + ".n" + std::to_string(n) + ".";
      test::SiteRun r;
      const int64_t m = n * (n + 2), D = 16;
      r.spec.kind = ops::ResidualKind::mhc;
      r.spec.streams = n;
      r.spec.dim = D;
      r.spec.convention = convention;
      r.spec.hc_eps = convention == ops::HcConvention::v4 ? 1e-6f : 0.f;
      r.x = load(key + "X", 8, n * D);
      r.W = load(key + "W", D, D);
      const Owned cotangent = load(key + "cotangent", 8, n * D);
      Owned norm = load(key + "norm_weight", 1, D), phi = load(key + "phi", m, n * D),
            scale = load(key + "scale", 1, 3), base = load(key + "base", 1, m);
      Owned d_norm(1, D), d_phi(m, n * D), d_scale(1, 3), d_base(1, m);
      r.w = {norm, phi, scale, base, {}};
      r.dw = {d_norm, d_phi, d_scale, d_base, {}};
      scratch_.reset();
      r.run(exec_, scratch_, cotangent);
      std::vector<double> q;
      for (int64_t i = 0; i < 8 * m; ++i) q.push_back(r.saved.logits.f32()[i]);
      expect_like(q, key + "q");
      expect_like(r.pre.values(), key + "pre");
      expect_like(r.post.values(), key + "post");
      expect_like(convention == ops::HcConvention::v4 ? transposed(r.res.values(), n) : r.res.values(), key + "comb");
      expect_like(r.y.values(), key + "y");
      expect_like(r.x_end.values(), key + "X_out");
      expect_like(r.dx.values(), key + "d_X");
      expect_like(d_phi.values(), key + "d_phi");
      expect_like(d_scale.values(), key + "d_scale");
      expect_like(d_base.values(), key + "d_base");
      expect_like(d_norm.values(), key + "d_norm_weight");
      expect_like(r.dW.values(), key + "d_W");
    }
  }
}

TEST_P(Vectors, UnconstrainedHyperConnections) {
  for (const int n : kStreams) {
    const std::string key = "hc.n" + std::to_string(n) + ".";
    test::SiteRun r;
    const int64_t m = n * (n + 2), D = 16;
    r.spec.kind = ops::ResidualKind::hc;
    r.spec.streams = n;
    r.spec.dim = D;
    r.x = load(key + "H", 8, n * D);
    r.W = load(key + "W", D, D);
    const Owned cotangent = load(key + "cotangent", 8, n * D);
    Owned norm = load(key + "sub_norm_weight", 1, D), hc_norm = load(key + "norm_weight", 1, D), fn(n + 2, D),
          scale(1, 2), base(1, m);
    const auto beta = golden(file(), key + "W_beta"), am = golden(file(), key + "W_m"),
               ar = golden(file(), key + "W_r");
    for (int64_t c = 0; c < D; ++c) {
      fn.set(c, beta[static_cast<size_t>(c)]);
      fn.set(D + c, am[static_cast<size_t>(c)]);
      for (int64_t k = 0; k < n; ++k) fn.set((2 + k) * D + c, ar[static_cast<size_t>(c * n + k)]);
    }
    scale.set(0, golden(file(), key + "s_beta")[0]);
    scale.set(1, golden(file(), key + "s_alpha")[0]);
    const auto B = golden(file(), key + "B"), A_m = golden(file(), key + "A_m"), A_r = golden(file(), key + "A_r");
    for (int64_t i = 0; i < n; ++i) {
      base.set(i, A_m[static_cast<size_t>(i)]);
      base.set(n + i, B[static_cast<size_t>(i)]);
    }
    for (int64_t i = 0; i < n * n; ++i) base.set(2 * n + i, A_r[static_cast<size_t>(i)]);
    Owned d_norm(1, D), d_hc_norm(1, D), d_fn(n + 2, D), d_scale(1, 2), d_base(1, m);
    r.w = {norm, fn, scale, base, hc_norm};
    r.dw = {d_norm, d_fn, d_scale, d_base, d_hc_norm};
    scratch_.reset();
    r.run(exec_, scratch_, cotangent);
    expect_like(r.post.values(), key + "beta");
    expect_like(r.pre.values(), key + "alpha_m");
    expect_like(transposed(r.res.values(), n), key + "alpha_r");
    expect_like(r.y.values(), key + "y");
    expect_like(r.x_end.values(), key + "H_out");
    expect_like(r.dx.values(), key + "d_H");
    const auto all = d_fn.values();
    const auto width = static_cast<size_t>(D);
    std::vector<double> rows(all.begin() + 2 * D, all.end()), d_r(rows.size());
    for (size_t k = 0; k < static_cast<size_t>(n); ++k)
      for (size_t c = 0; c < width; ++c) d_r[c * static_cast<size_t>(n) + k] = rows[k * width + c];
    expect_like({all.begin(), all.begin() + D}, key + "d_W_beta");
    // One stream: the pre-norm makes the read weight's gradient vanish but for eps; T*D products of order one cancel.
    const double cancelling = n == 1 ? 1.0 : 1e-2;
    expect_like({all.begin() + D, all.begin() + 2 * D}, key + "d_W_m", cancelling);
    expect_like(d_r, key + "d_W_r");
    const auto db = d_base.values();
    expect_like({db.begin(), db.begin() + n}, key + "d_A_m", cancelling);
    expect_like({db.begin() + n, db.begin() + 2 * n}, key + "d_B");
    expect_like({db.begin() + 2 * n, db.end()}, key + "d_A_r");
    expect_like({d_scale.at(0)}, key + "d_s_beta");
    expect_like({d_scale.at(1)}, key + "d_s_alpha");
    expect_like(d_hc_norm.values(), key + "d_norm_weight");
    expect_like(d_norm.values(), key + "d_sub_norm_weight");
    expect_like(r.dW.values(), key + "d_W");
  }
}

TEST_P(Vectors, Head) {
  for (const int n : kStreams) {
    const std::string key = "head.n" + std::to_string(n) + ".";
    const int64_t T = 8, D = 16, m = n * (n + 2);
    ops::ResidualSpec spec;
    spec.kind = ops::ResidualKind::mhc;
    spec.streams = n;
    spec.dim = D;
    const Owned x = load(key + "X", T, n * D), cotangent = load(key + "cotangent", T, D);
    Owned fn = load(key + "fn", n, n * D), base = load(key + "base", 1, n), scale = load(key + "scale", 1, 1);
    Owned d_fn(n, n * D), d_base(1, n), d_scale(1, 1), x_end(T, n * D), h(T, D), weights(T, n), dx(T, n * D), dy(T, D),
        y(T, D);
    const ops::HeadWeights head{fn, scale, base};
    ops::HeadWeights d_head{d_fn, d_scale, d_base};
    // A last site that changes nothing: H_res = I, y = 0.
    Owned norm(1, D), site_fn(m, n * D), site_scale(1, 3), site_base(1, m);
    spec.learn_res = false;
    const ops::SiteWeights last{norm, site_fn, site_scale, site_base, {}};
    scratch_.reset();
    ops::SiteSaved saved = ops::SiteSaved::take(scratch_, spec, T);
    Owned in(T, D);
    ops::site_open(exec_, spec, last, x, saved, in, scratch_);
    ops::HeadSaved head_saved = ops::HeadSaved::take(scratch_, spec, T);
    ops::site_close(exec_, spec, {{last, saved}, x, y}, x_end, head, head_saved, h, scratch_);
    ops::head_coefficients(exec_, spec, head, head_saved, weights);
    expect_like(weights.values(), key + "weights");
    expect_like(h.values(), key + "out");
    ops::site_close_backward(exec_, spec, {head, head_saved, x_end}, {cotangent, dx}, d_head, {{last, saved}, dy},
                             scratch_);
    expect_like(dx.values(), key + "d_X");
    expect_like(d_fn.values(), key + "d_fn");
    expect_like(d_base.values(), key + "d_base");
    expect_like(d_scale.values(), key + "d_scale");
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Vectors, testing::ValuesIn(test::machine_isas()),
                         [](const auto& p) { return isa_name(p.param); });

}  // namespace
}  // namespace birkhoff
