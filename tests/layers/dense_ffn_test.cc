#include "layers/dense_ffn.h"

#include "reference/layers.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

using layers::DenseFfn;

struct FfnCase {
  int64_t tokens, dim, inter;
  DType t;
  LayerWeights<DenseFfn::Weights> lw;
  Owned x, dy, y, dx;

  FfnCase(int64_t T, int64_t D, int64_t F, DType type)
      : tokens(T),
        dim(D),
        inter(F),
        t(type),
        lw(DenseFfn::Weights(DenseFfn::Spec{D, F}), type, 3),
        x(random(T, D, 1, 1.0, type)),
        dy(random(T, D, 2, 1.0, type)) {}

  void run(int threads) {
    const Exec exec(threads);
    Arena memory(size_t{8} << 20), scratch(size_t{8} << 20);
    y = random(tokens, dim, 4, 1.0, t), dx = random(tokens, dim, 5, 1.0, t);  // assigned: old values must not matter
    lw.reset_gradients();
    const DenseFfn::Spec s{dim, inter};
    auto saved = DenseFfn::reserve(memory, s, t, tokens);
    const ops::RopeTable none;
    const layers::TokenContext nowhere;
    const layers::Pass pass{exec, none, nowhere, scratch};
    DenseFfn::forward(pass, s, lw.w, x, saved, y);
    DenseFfn::backward(pass, s, lw.w, x, saved, {dy, dx}, lw.grad);
    EXPECT_EQ(scratch.used(), 0u);
  }
};

void check(FfnCase& c, const Tensors<double>& want, const std::vector<double>& want_y) {
  c.run(1);
  const double e = chain_tolerance(4, std::max(c.dim, c.inter), c.t);
  expect_close(c.y.values(), want_y, e * largest(want_y), "y");
  Tensors<double> got = c.lw.gradients();
  got["x"] = c.dx.values();
  expect_gradients(got, want, e);
}

TEST(DenseFfn, ForwardAndGradients) {
  for (const auto& [T, D, F] :
       std::vector<std::array<int64_t, 3>>{{0, 8, 8}, {1, 1, 1}, {3, 17, 15}, {17, 12, 24}, {70, 33, 9}}) {
    for (DType t : {f32_t, bf16_t}) {
      SCOPED_TRACE(std::to_string(T) + "x" + std::to_string(D) + " inter " + std::to_string(F) + " " + dtype_name(t));
      FfnCase c(T, D, F, t);
      Tensors<double> at = c.lw.values();
      at["x"] = c.x.values();
      const reference::SwiGlu spec{static_cast<size_t>(D), static_cast<size_t>(F)};
      const auto cotangent = c.dy.values();
      const auto tokens = static_cast<size_t>(T);
      const auto want = reference::complex_gradient(
          at, [&](const auto& z) { return reference::dot(cotangent, spec(z, "", z.at("x"), tokens)); }, 150);
      for (Isa isa : machine_isas()) {
        const IsaScope scope(isa);
        SCOPED_TRACE(isa_name(isa));
        check(c, want, spec(at, "", at.at("x"), tokens));
      }
    }
  }
}

TEST(DenseFfn, ThreadsDoNotMatter) {
  for (DType t : {f32_t, bf16_t}) {
    FfnCase one(200, 40, 72, t), three(200, 40, 72, t);
    one.run(1);
    three.run(3);
    EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx));
    EXPECT_EQ(one.lw.gradients(), three.lw.gradients());
  }
}

}  // namespace
}  // namespace birkhoff::test
