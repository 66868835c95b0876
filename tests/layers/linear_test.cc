#include "layers/linear.h"

#include "reference/gemm.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

struct OneLinear {
  layers::Linear l;
  explicit OneLinear(int64_t out, int64_t in) : l({{"w", out}}, in) {}
  template <class W, class F>
  static void visit(W& w, const std::string& p, F&& f) {
    f(p, w.l);
  }
};

void check(int64_t tokens, int64_t in, int64_t out, DType t) {
  SCOPED_TRACE(std::to_string(tokens) + " tokens, " + std::to_string(in) + " -> " + std::to_string(out) + " " +
               dtype_name(t));
  LayerWeights<OneLinear> lw(OneLinear(out, in), t, 3);
  const Owned x = random(tokens, in, 1, 1.0, t), dy = random(tokens, out, 2, 1.0, t);
  Owned y = random(tokens, out, 4, 1.0, t), dx = random(tokens, in, 5, 1.0, t);  // assigned: old values must not matter
  const Exec exec(2);
  Arena scratch(size_t{8} << 20);
  layers::linear_forward(exec, lw.w.l, x, y);
  layers::linear_backward(exec, lw.w.l, x, dy, dx, lw.grad.l, scratch);

  const auto T = static_cast<size_t>(tokens), K = static_cast<size_t>(in), N = static_cast<size_t>(out);
  const auto w = lw.values()["w.weight"];
  const auto close = [&](const Owned& got, const std::vector<double>& want, int64_t terms, const char* what) {
    expect_close(got.values(), want, chain_tolerance(1, terms, t) * std::max(1.0, largest(want)), what);
  };
  close(y, reference::linear(x.values(), w, T, K, N), in, "y");
  close(dx, reference::product(dy.values(), w, T, N, K), out, "dx");
  const auto dw = reference::product(reference::transpose(dy.values(), T, N), x.values(), N, T, K);
  expect_gradients(lw.gradients(), {{"w.weight", dw}}, chain_tolerance(1, tokens, f32_t));

  // Without dx only the weight's gradient moves.
  const Owned kept = dx;
  lw.reset_gradients();
  layers::linear_backward(exec, lw.w.l, x, dy, Mat{}, lw.grad.l, scratch);
  expect_gradients(lw.gradients(), {{"w.weight", dw}}, chain_tolerance(1, tokens, f32_t));
  EXPECT_TRUE(dx.same_bytes(kept));
}

TEST(Linear, ForwardAndGradients) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t tokens : {0, 1, 15, 16, 17, 130}) check(tokens, 33, 17, t);
      check(5, 1, 1, t);
      check(31, 64, 48, t);
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
