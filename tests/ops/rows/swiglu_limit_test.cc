// The gate with a limit (models.md G.7).
#include "ops/rows/swiglu.h"
#include "reference/layers.h"
#include "support/layer_case.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

struct Halves {
  double h, dg, du, d_weight;
};
// min(g, limit) and clamp(u, +-limit); nothing flows back where they cut.
Halves specification(double g, double u, double weight, double dh, double limit) {
  using C = reference::Complex;
  const auto value = [&](C gate, C up, C w) {
    if (gate.real() > limit) gate = limit;
    if (up.real() > limit) up = limit;
    if (up.real() < -limit) up = -limit;
    return w * reference::silu(gate) * up;
  };
  const double step = 1e-50;
  return {value(g, u, weight).real(), dh * value(C(g, step), u, weight).imag() / step,
          dh * value(g, C(u, step), weight).imag() / step, dh * value(g, u, C(weight, step)).imag() / step};
}

void check(int64_t rows, int64_t F, float limit, bool weighted, DType t) {
  SCOPED_TRACE(std::to_string(F) + " limit " + std::to_string(limit) + " " + dtype_name(t));
  const Exec exec(1);
  Owned gu = random(rows, 2 * F, 1, 2.0, t);
  const Owned weight = random(rows, 1, 2), dh = random(rows, F, 3, 1.0, t);
  if (F) gu.set(0, -100), gu.set(F, limit);  // far below only the up half is cut; exactly at the limit nothing is
  Owned h(rows, F, t), dgu(rows, 2 * F, t), d_weight(rows, 1);
  const CMat w = weighted ? CMat(weight) : CMat{};
  ops::swiglu_forward(exec, gu, w, h, limit);
  ops::swiglu_backward(exec, gu, w, dh, dgu, weighted ? Mat(d_weight) : Mat{}, limit);
  const double e = t == f32_t ? 32 * 0x1p-24 : 0x1p-8;
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0, size = 0;
    for (int64_t f = 0; f < F; ++f) {
      const Halves want = specification(gu.at(r, f), gu.at(r, F + f), weighted ? weight.at(r) : 1, dh.at(r, f), limit);
      const double scale = 1 + std::abs(gu.at(r, f) * gu.at(r, F + f)) * (1 + std::abs(dh.at(r, f)));
      EXPECT_NEAR(h.at(r, f), want.h, e * scale);
      EXPECT_NEAR(dgu.at(r, f), want.dg, e * scale * 4);
      EXPECT_NEAR(dgu.at(r, F + f), want.du, e * scale * 4);
      if (gu.at(r, f) > limit) {
        EXPECT_EQ(dgu.at(r, f), 0.0);
      }
      if (std::abs(gu.at(r, F + f)) > limit) {
        EXPECT_EQ(dgu.at(r, F + f), 0.0);
      }
      sum += want.d_weight;
      size += std::abs(want.d_weight) + scale;
    }
    if (weighted) {
      EXPECT_NEAR(d_weight.at(r), sum, 32 * 0x1p-24 * size);
    }
  }
}

TEST(SwiGluLimit, MatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t})
      for (const float limit : {0.5f, 2.f, 10.f, ops::kNoLimit})
        for (const int64_t F : {0, 1, 7, 8, 9, 16, 17}) {
          if (limit == ops::kNoLimit && F) continue;
          check(3, F, limit, F % 2 == 0, t);
        }
  }
}

TEST(SwiGluLimit, AWideLimitChangesNothing) {
  const Exec exec(1);
  const Owned gu = random(5, 40, 1), dh = random(5, 20, 2);
  Owned h(5, 20), h1(5, 20), d(5, 40), d1(5, 40);
  ops::swiglu_forward(exec, gu, CMat{}, h);
  ops::swiglu_forward(exec, gu, CMat{}, h1, 1e30f);
  ops::swiglu_backward(exec, gu, CMat{}, dh, d, Mat{});
  ops::swiglu_backward(exec, gu, CMat{}, dh, d1, Mat{}, 1e30f);
  EXPECT_TRUE(h.same_bytes(h1) && d.same_bytes(d1));
}

}  // namespace
}  // namespace birkhoff::test
