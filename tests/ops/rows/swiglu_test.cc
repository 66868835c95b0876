// The SwiGLU gate with and without a weight per row, against the formula and its complex-step gradients.
#include "ops/rows/swiglu.h"

#include "reference/complex_step.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

using reference::Complex;

// h [T, F] of gu [T, 2F] and a weight per row.
template <class S>
std::vector<S> swiglu(const std::vector<S>& gu, const std::vector<S>& weight, size_t F) {
  std::vector<S> h;
  for (size_t t = 0; t < weight.size(); ++t)
    for (size_t f = 0; f < F; ++f) {
      const S g = gu[t * 2 * F + f];
      h.push_back(weight[t] * g / (S(1) + std::exp(-g)) * gu[t * 2 * F + F + f]);
    }
  return h;
}

void check(int64_t T, int64_t F, DType t, bool weighted) {
  SCOPED_TRACE(std::to_string(T) + "x" + std::to_string(F) + " " + dtype_name(t) + (weighted ? " weighted" : ""));
  const Exec exec(1);
  const Owned gu = random(T, 2 * F, 1, 2, t), dh = random(T, F, 2, 1, t);
  Owned weight = random(T, 1, 3);
  if (!weighted)
    for (int64_t i = 0; i < T; ++i) weight.set(i, 1);
  Owned h = random(T, F, 4, 1, t), dgu = random(T, 2 * F, 5, 1, t),
        d_weight = random(T, 1, 6);  // assigned: old values must not matter
  const CMat w = weighted ? weight.view() : Mat();
  ops::swiglu_forward(exec, gu, w, h);
  ops::swiglu_backward(exec, gu, w, dh, dgu, weighted ? d_weight.view() : Mat());

  // A value is a product of four factors in fp32 with an exponential of relative error 2^-22, rounded once; a gradient
  // has one sum more.
  const double round = t == f32_t ? 0x1p-24 : 0x1p-9, error = 8 * 0x1p-22 + 2 * round;
  const auto width = static_cast<size_t>(F);
  const auto want = swiglu(gu.values(), weight.values(), width);
  expect_close(h.values(), want, error * largest(want), "h");
  const auto want_dgu = reference::complex_step(gu.values(), [&](const auto& z) {
    return reference::dot(dh.values(), swiglu(z, reference::lift(weight.values()), width));
  });
  expect_close(dgu.values(), want_dgu, error * largest(want_dgu), "dgu");
  Owned in_place = gu;
  ops::swiglu_backward(exec, in_place, w, dh, in_place, weighted ? d_weight.view() : Mat());
  EXPECT_TRUE(in_place.same_bytes(dgu)) << "dgu may be gu";
  if (!weighted) return;
  const auto want_dw = reference::complex_step(weight.values(), [&](const auto& z) {
    return reference::dot(dh.values(), swiglu(reference::lift(gu.values()), z, width));
  });
  expect_close(d_weight.values(), want_dw,
               (8 * 0x1p-22 + sum_tolerance(F, 1)) * std::max(1.0, largest(want_dw)) * largest(gu.values()) *
                   largest(gu.values()),
               "d_weight");
}

TEST(SwiGlu, ForwardAndGradients) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t})
      for (bool weighted : {false, true}) {
        for (int64_t F : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65}) check(3, F, t, weighted);
        check(0, 8, t, weighted);
        check(1, 1, t, weighted);
      }
  }
}

TEST(SwiGlu, LargeGatesStayFinite) {
  const Exec exec(1);
  const Owned gu(1, 8, {-1e4, -100, 100, 1e4, 1, 1, 1, 1}), dh(1, 4, {1, 1, 1, 1});
  Owned h(1, 4), dgu(1, 8);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    ops::swiglu_forward(exec, gu, {}, h);
    ops::swiglu_backward(exec, gu, {}, dh, dgu, {});
    expect_close(h.values(), {0, 0, 100, 1e4}, 1e-3, "h");
    expect_close(dgu.values(), {0, 0, 1, 1, 0, 0, 100, 1e4}, 1e-3, "dgu");
  }
}

TEST(SwiGlu, ThreadsDoNotChangeBits) {
  const Owned gu = random(700, 130, 1, 1, bf16_t), dh = random(700, 65, 2, 1, bf16_t), weight = random(700, 1, 3);
  Owned h[2], dgu[2], dw[2];
  for (int i = 0; i < 2; ++i) {
    const Exec exec(i ? 3 : 1);
    h[i] = Owned(700, 65, bf16_t), dgu[i] = Owned(700, 130, bf16_t), dw[i] = Owned(700, 1);
    ops::swiglu_forward(exec, gu, weight, h[i]);
    ops::swiglu_backward(exec, gu, weight, dh, dgu[i], dw[i]);
  }
  EXPECT_TRUE(h[0].same_bytes(h[1]) && dgu[0].same_bytes(dgu[1]) && dw[0].same_bytes(dw[1]));
}

}  // namespace
}  // namespace birkhoff::test
