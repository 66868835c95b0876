// Low-rank additions against the equation, grouped and plain, all gradients, every instruction set.
#include "ops/gemm/low_rank.h"

#include "reference/gemm.h"
#include "reference/tensors.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

constexpr float kScale = 1.75f;

// y0 + scale (x A_g^T) B_g^T by groups of rows.
template <class S>
std::vector<S> specification(const reference::Tensors<S>& z, const std::vector<int32_t>& offsets, size_t in,
                             size_t rank, size_t out) {
  std::vector<S> y = z.at("y0");
  for (size_t g = 0; g + 1 < offsets.size(); ++g) {
    const auto first = static_cast<size_t>(offsets[g]), rows = static_cast<size_t>(offsets[g + 1]) - first;
    const std::string key = std::to_string(g);
    const std::vector<S> x(z.at("x").begin() + static_cast<std::ptrdiff_t>(first * in),
                           z.at("x").begin() + static_cast<std::ptrdiff_t>((first + rows) * in));
    const auto part =
        reference::linear(reference::linear(x, z.at("a" + key), rows, in, rank), z.at("b" + key), rows, rank, out);
    for (size_t i = 0; i < part.size(); ++i) y[first * out + i] += static_cast<double>(kScale) * part[i];
  }
  return y;
}

struct Groups {
  std::vector<Owned> a, b, d_a, d_b;
  std::vector<ops::LowRank> l;
  Arena memory{size_t{4} << 20};

  Groups(size_t n, int64_t in, int64_t rank, int64_t out) {
    for (size_t g = 0; g < n; ++g) {
      a.push_back(random(rank, in, 10 + g, 0.4));
      b.push_back(random(out, rank, 40 + g, 0.4));
      d_a.push_back(random(rank, in, 70 + g));  // gradients accumulate
      d_b.push_back(random(out, rank, 90 + g));
      l.push_back(ops::LowRank::take(memory, in, rank, out, true));
      l.back().scale = kScale;
      l.back().refresh(Exec(1), a[g], b[g]);
    }
  }
  static std::vector<Mat> views(std::vector<Owned>& v) {
    std::vector<Mat> m;
    for (Owned& o : v) m.push_back(o);
    return m;
  }
};

void check(const std::vector<int32_t>& offsets, int64_t in, int64_t rank, int64_t out, DType t) {
  SCOPED_TRACE(std::to_string(offsets.back()) + " rows, " + std::to_string(in) + " -> " + std::to_string(rank) +
               " -> " + std::to_string(out) + " " + dtype_name(t));
  const int64_t T = offsets.back();
  Groups g(offsets.size() - 1, in, rank, out);
  const Owned x = random(T, in, 1, 1.0, t), dy = random(T, out, 2, 1.0, t), y0 = random(T, out, 3, 1.0, t),
              dx0 = random(T, in, 4, 1.0, t);
  reference::Tensors<double> at{{"x", x.values()}, {"y0", y0.values()}};
  for (size_t i = 0; i < g.a.size(); ++i)
    at["a" + std::to_string(i)] = g.a[i].values(), at["b" + std::to_string(i)] = g.b[i].values();
  const auto N = [](int64_t i) { return static_cast<size_t>(i); };
  const auto want = reference::complex_gradient(
      at, [&](const auto& z) { return reference::dot(dy.values(), specification(z, offsets, N(in), N(rank), N(out))); },
      60);
  const auto y_want = specification(at, offsets, N(in), N(rank), N(out));
  const double e = chain_tolerance(3, std::max({in, out, T, rank}), f32_t), stored = t == f32_t ? 0 : 0x1p-8;

  Exec exec(2);
  Arena scratch(size_t{16} << 20);
  Owned y = y0, dx = dx0;
  ops::low_rank_forward(exec, x, offsets, g.l, y);
  expect_close(y.values(), y_want, (e + stored) * std::max(1.0, largest(y_want)), "y");
  const std::vector<Owned> a0 = g.d_a, b0 = g.d_b;
  ops::low_rank_backward(exec, x, dy, offsets, g.l, {dx, Groups::views(g.d_a), Groups::views(g.d_b)}, scratch);
  EXPECT_EQ(scratch.used(), 0u);
  const auto added = [](const Owned& now, const Owned& before) {
    std::vector<double> v = now.values();
    for (size_t i = 0; i < v.size(); ++i) v[i] -= before.at(static_cast<int64_t>(i));
    return v;
  };
  expect_gradient(added(dx, dx0), want.at("x"), e + stored, 4 * (0x1p-22 + stored), "dx");
  for (size_t i = 0; i < g.a.size(); ++i) {
    expect_gradient(added(g.d_a[i], a0[i]), want.at("a" + std::to_string(i)), e, 0x1p-20, "dA");
    expect_gradient(added(g.d_b[i], b0[i]), want.at("b" + std::to_string(i)), e, 0x1p-20, "dB");
  }
  // Without dx the gradients of the adapter alone.
  std::vector<Owned> again_a = a0, again_b = b0;
  ops::low_rank_backward(exec, x, dy, offsets, g.l, {Mat{}, Groups::views(again_a), Groups::views(again_b)}, scratch);
  for (size_t i = 0; i < a0.size(); ++i)
    EXPECT_TRUE(again_a[i].same_bytes(g.d_a[i]) && again_b[i].same_bytes(g.d_b[i]));
}

TEST(LowRank, ForwardAndGradientsAgainstTheEquation) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      check({0, 1}, 1, 1, 1, t);
      check({0, 33}, 17, 3, 15, t);
      check({0, 65}, 32, 16, 530, t);
      check({0, 5, 5, 40, 41}, 18, 4, 21, t);
    }
  }
}

TEST(LowRank, ARowDoesNotDependOnItsNeighboursOrTheThreads) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      Groups g(1, 40, 5, 600);
      const Owned x = random(70, 40, 1, 1.0, t), y0 = random(70, 600, 3, 1.0, t);
      Owned all = y0;
      const std::vector<int32_t> offsets{0, 70}, one{0, 1};
      ops::low_rank_forward(Exec(3), x, offsets, g.l, all);
      Owned rows = y0;
      for (int64_t r = 0; r < 70; ++r)
        ops::low_rank_forward(Exec(1), x.view().row_block(r, 1), one, g.l, rows.view().row_block(r, 1));
      EXPECT_TRUE(rows.same_bytes(all)) << isa_name(isa) << " " << dtype_name(t);
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
