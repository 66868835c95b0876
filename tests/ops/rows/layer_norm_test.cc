#include "ops/rows/layer_norm.h"

#include "reference/norm.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

constexpr float kLayerNormEps = 1e-3f;  // large enough to be seen in rows of one or two elements

struct LayerNormResult {
  Owned y, stats, dx, dw, db;
};
LayerNormResult run(CMat x, const Owned& w, const Owned& b, const Owned& dy, int threads = 1) {
  const Exec exec(threads);
  Arena scratch(1 << 20);
  const DType t = x.dtype;
  LayerNormResult r{random(x.rows, x.cols, 7, 1.0, t), Owned(x.rows, 2), random(x.rows, x.cols, 8, 1.0, t),
                    random(1, x.cols, 6), random(1, x.cols, 9)};
  ops::layer_norm_forward(exec, x, w, b, kLayerNormEps, r.y, r.stats);
  ops::layer_norm_backward(exec, x, w, r.stats, dy, {r.dx, r.dw, r.db}, scratch);
  EXPECT_EQ(scratch.used(), 0u);
  return r;
}

void check(int64_t rows, int64_t dim, DType t) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(dim) + " " + dtype_name(t));
  Owned x = random(rows, dim, 3, 2.0, t);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) + 5);  // a mean far from zero
  const Owned w = random(1, dim, 4), b = random(1, dim, 2), dy = random(rows, dim, 5, 1.0, t);
  const Tensors<double> at = {{"x", x.values()}, {"w", w.values()}, {"b", b.values()}};
  const auto output = [&](const auto& z) {
    return reference::layer_norm(z.at("x"), z.at("w"), z.at("b"), static_cast<double>(kLayerNormEps));
  };
  const auto want = output(at), cotangent = dy.values();
  const auto gradient =
      reference::complex_gradient(at, [&](const auto& z) { return reference::dot(cotangent, output(z)); });
  const LayerNormResult r = run(x, w, b, dy);
  // The mean of terms around 5 leaves 5 dim roundings in differences of size 2.
  const double e = chain_tolerance(3, 5 * dim, t) + 40 * 0x1p-24;
  expect_close(r.y.values(), want, e * (1 + largest(want)), "y");
  expect_gradient(r.dx.values(), gradient.at("x"), e,
                  e * largest(w.values()) * largest(cotangent) * largest(r.stats.values()), "dx");
  const auto added = [&](const Owned& now, uint64_t seed) {
    auto v = now.values();
    const auto before = random(1, dim, seed).values();
    for (size_t i = 0; i < v.size(); ++i) v[i] -= before[i];
    return v;
  };
  const double sum = static_cast<double>(rows) * largest(cotangent) * (1 + largest(want));
  expect_close(added(r.dw, 6), gradient.at("w"), chain_tolerance(3, 5 * dim + rows, f32_t) * sum + 1e-6, "dw");
  expect_close(added(r.db, 9), gradient.at("b"), chain_tolerance(3, rows, f32_t) * sum + 1e-6, "db");
}

TEST(LayerNorm, MatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t dim : {1, 2, 7, 8, 9, 15, 16, 17, 33, 65}) check(3, dim, t);
      check(0, 16, t);
      check(1, 130, t);
    }
  }
}

TEST(LayerNorm, ConstantRowsAreFinite) {
  Owned x(2, 24);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, 3);
  const Owned w = random(1, 24, 1), b = random(1, 24, 2), dy = random(2, 24, 3);
  const LayerNormResult r = run(x, w, b, dy);
  for (int64_t i = 0; i < 48; ++i) EXPECT_EQ(r.y.at(i), b.at(i % 24));
  for (double v : r.dx.values()) EXPECT_TRUE(std::isfinite(v));
}

// Rows of a wider matrix, in place, and threads where several tasks add into dw and db.
TEST(LayerNorm, StridesAliasesAndThreads) {
  const int64_t rows = 2100, dim = 40;
  const Owned wide = random(rows, dim + 9, 1, 1.0, bf16_t), w = random(1, dim, 2), b = random(1, dim, 4),
              dy = random(rows, dim, 3, 1.0, bf16_t);
  const CMat x = wide.view().col_block(3, dim);
  const LayerNormResult one = run(x, w, b, dy), three = run(x, w, b, dy, 3);
  EXPECT_TRUE(one.y.same_bytes(three.y) && one.dx.same_bytes(three.dx) && one.dw.same_bytes(three.dw) &&
              one.db.same_bytes(three.db));
  Owned copy(rows, dim, bf16_t), stats(rows, 2), dx = dy, dw(1, dim), db(1, dim);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < dim; ++c) copy.set(r * dim + c, wide.at(r, c + 3));
  ops::layer_norm_forward(Exec(1), copy, w, b, kLayerNormEps, copy, stats);
  EXPECT_TRUE(copy.same_bytes(one.y));
  Arena scratch(1 << 20);
  ops::layer_norm_backward(Exec(1), x, w, stats, dx, {dx, dw, db}, scratch);
  EXPECT_TRUE(dx.same_bytes(one.dx));
}

}  // namespace
}  // namespace birkhoff::test
