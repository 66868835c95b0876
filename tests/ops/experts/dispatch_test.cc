// Rows between tokens and experts: gathers and sums that are linear, so each backward is checked as the transpose of
// its forward, and un-permuting undoes permuting. The derivative of a router's scores by complex steps.
#include "ops/experts/dispatch.h"

#include "ops/experts/router_scores.h"
#include "ops/experts/routing.h"
#include "reference/complex_step.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

using ops::Scoring;

struct Routed {
  Arena memory{size_t{16} << 20};
  ops::Routing r;
  int64_t T, E, K;
  Routed(int64_t tokens, int64_t experts, int64_t active)
      : r(ops::Routing::take(memory, tokens, experts, active)), T(tokens), E(experts), K(active) {
    ops::RouterRule rule;
    rule.experts = experts, rule.active = active;
    ops::route_forward(Exec(1), rule, random(tokens, experts, 9), {}, r);
  }
};

double inner(const Owned& a, const Owned& b) {
  double s = 0;
  for (int64_t i = 0; i < a.size(); ++i) s += a.at(i) * b.at(i);
  return s;
}

// <b, A a> and <A^T b, a> sum the same `terms` products of normal numbers.
void expect_transposed(double left, double right, int64_t terms, DType t) {
  EXPECT_NEAR(left, right, 8 * std::sqrt(static_cast<double>(terms + 1)) * 16 * (t == f32_t ? 0x1p-24 : 0x1p-9));
}

void check(int64_t T, int64_t E, int64_t K, int64_t D, DType t) {
  SCOPED_TRACE(std::to_string(T) + " tokens, " + std::to_string(K) + " of " + std::to_string(E) + ", D " +
               std::to_string(D) + " " + dtype_name(t));
  const Exec exec(1);
  Routed at(T, E, K);
  EXPECT_EQ(at.r.offsets.back(), T * K) << "no token is dropped";
  const Owned x = random(T, D, 1, 1, t), d_rows = random(T * K, D, 2, 1, t);
  Owned rows(T * K, D, t), dx = random(T, D, 3, 1, t);
  ops::dispatch_forward(exec, at.r, x, rows);
  for (int64_t e = 0; e < E; ++e) {
    EXPECT_EQ(at.r.offsets[static_cast<size_t>(e + 1)] - at.r.offsets[static_cast<size_t>(e)],
              at.r.count[static_cast<size_t>(e)]);
    for (int32_t row = at.r.offsets[static_cast<size_t>(e)]; row < at.r.offsets[static_cast<size_t>(e + 1)]; ++row)
      for (int64_t c = 0; c < D; ++c) EXPECT_EQ(rows.at(row, c), x.at(at.r.token[static_cast<size_t>(row)], c));
  }
  ops::dispatch_backward(exec, at.r, d_rows, dx, false);
  expect_transposed(inner(d_rows, rows), inner(dx, x), T * K * D, t);

  // Combining what was dispatched gives K times the token; with accumulation on top of what is there.
  Owned y = random(T, D, 4, 1, t), dy = random(T, D, 5, 1, t), d_combined(T * K, D, t);
  ops::combine_forward(exec, at.r, rows, y, false);
  for (int64_t i = 0; i < T * D; ++i)
    EXPECT_NEAR(y.at(i), static_cast<double>(K) * x.at(i), 0x1p-8 * static_cast<double>(K) * std::abs(x.at(i)));
  ops::combine_backward(exec, at.r, dy, d_combined);
  expect_transposed(inner(dy, y), inner(d_combined, rows), T * K * D, t);
  Owned twice = y, dx_twice = dx;
  ops::combine_forward(exec, at.r, rows, twice, true);
  ops::dispatch_backward(exec, at.r, d_rows, dx_twice, true);
  for (int64_t i = 0; i < T * D; ++i) {
    EXPECT_NEAR(twice.at(i), 2 * y.at(i), 0x1p-7 * std::abs(2 * y.at(i)));
    EXPECT_NEAR(dx_twice.at(i), 2 * dx.at(i), 0x1p-7 * std::abs(2 * dx.at(i)));
  }

  const Owned slots = random(T, K, 6);
  Owned by_row(T * K, 1), back(T, K);
  ops::slots_to_rows(exec, at.r, slots, by_row);
  ops::rows_to_slots(exec, at.r, by_row, back);
  EXPECT_TRUE(back.same_bytes(slots));
}

TEST(Dispatch, GathersAndTheirTransposes) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t D : {1, 7, 8, 9, 15, 16, 17, 33}) check(9, 5, 2, D, t);
      check(0, 4, 2, 8, t);
      check(1, 1, 1, 1, t);
      check(70, 3, 3, 12, t);
    }
  }
}

TEST(RouterScores, DerivativeByComplexSteps) {
  const auto scores = [](Scoring s, const auto& z) {
    auto out = z;
    std::remove_reference_t<decltype(z[0] + z[0])> sum = 0;
    for (size_t i = 0; i < z.size(); ++i) {
      if (s == Scoring::softmax) sum += out[i] = std::exp(z[i]);
      if (s == Scoring::sigmoid) out[i] = 1.0 / (1.0 + std::exp(-z[i]));
      if (s == Scoring::sqrtsoftplus) out[i] = std::sqrt(std::log(1.0 + std::exp(z[i])));
    }
    if (s == Scoring::softmax)
      for (auto& v : out) v /= sum;
    return out;
  };
  for (Scoring s : {Scoring::softmax, Scoring::sigmoid, Scoring::sqrtsoftplus})
    for (int64_t n : {1, 2, 7, 8, 9, 64}) {
      const Owned z = random(1, n, 1, 2), d = random(1, n, 2);
      Owned got(1, n), grad = random(1, n, 3);
      const auto before = grad.values();
      ops::router_scores(s, z.view().f32(), n, got.view().f32());
      ops::router_scores_backward(s, z.view().f32(), got.view().f32(), d.view().f32(), n, grad.view().f32(), true);
      const auto want = scores(s, z.values());
      expect_close(got.values(), want, 8 * 0x1p-24 * largest(want), "scores");
      auto want_grad =
          reference::complex_step(z.values(), [&](const auto& c) { return reference::dot(d.values(), scores(s, c)); });
      for (size_t i = 0; i < before.size(); ++i) want_grad[i] += before[i];
      expect_close(grad.values(), want_grad, sum_tolerance(n, largest(d.values()) + largest(before)), "d_logits");
    }
}

TEST(Dispatch, ThreadsDoNotChangeBits) {
  Routed at(600, 8, 3);
  const Owned x = random(600, 72, 1, 1, bf16_t), d_rows = random(1800, 72, 2, 1, bf16_t);
  Owned rows[2], dx[2], y[2];
  for (int i = 0; i < 2; ++i) {
    const Exec exec(i ? 3 : 1);
    rows[i] = Owned(1800, 72, bf16_t), dx[i] = Owned(600, 72, bf16_t), y[i] = Owned(600, 72, bf16_t);
    ops::dispatch_forward(exec, at.r, x, rows[i]);
    ops::dispatch_backward(exec, at.r, d_rows, dx[i], false);
    ops::combine_forward(exec, at.r, d_rows, y[i], false);
  }
  EXPECT_TRUE(rows[0].same_bytes(rows[1]) && dx[0].same_bytes(dx[1]) && y[0].same_bytes(y[1]));
}

}  // namespace
}  // namespace birkhoff::test
