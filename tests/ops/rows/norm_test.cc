#include "ops/rows/norm.h"

#include <cstring>

#include "reference/complex_step.h"
#include "reference/norm.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

constexpr float kEps = 1e-6f;

double round_off(DType t) { return t == f32_t ? 0x1p-24 : 0x1p-8; }

// Relative error of rstd: half of that of a sum of `dim` squares in at least 4 chains (dim/4 roundings), three more
// roundings.
double statistic_error(int64_t dim) { return 0x1p-24 * (static_cast<double>(dim) / 8 + 8); }

void check_forward(int64_t rows, int64_t dim, DType t) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(dim) + " " + dtype_name(t));
  const Exec exec(1);
  const Owned x = random(rows, dim, 1, 3.0, t), w = random(1, dim, 2);
  Owned y(rows, dim, t), rstd(rows, 1);
  ops::rms_norm_forward(exec, x, w, kEps, y, rstd);
  const auto want = reference::rms_norm(x.values(), w.values(), kEps);
  const double limit = largest(want) * (round_off(t) + statistic_error(dim));
  expect_close(y.values(), want, limit, "y");
  Owned in_place = x;
  ops::rms_norm_forward(exec, in_place, w, kEps, in_place, rstd);
  EXPECT_TRUE(in_place.same_bytes(y));
}

void check_backward(int64_t rows, int64_t dim, DType t) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(dim) + " " + dtype_name(t));
  const Exec exec(1);
  const Owned x = random(rows, dim, 3, 2.0, t), w = random(1, dim, 4), dy = random(rows, dim, 5, 1.0, t);
  Owned y(rows, dim, t), rstd(rows, 1), dx(rows, dim, t), dw = random(1, dim, 6);
  const auto dw_before = dw.values();
  ops::rms_norm_forward(exec, x, w, kEps, y, rstd);
  Arena scratch(1 << 20);
  ops::rms_norm_backward(exec, x, w, rstd, dy, dx, dw, scratch);

  const auto cotangent = dy.values();
  const auto wx = w.values();
  const auto want_dx = reference::complex_step(x.values(), [&](const auto& z) {
    return reference::dot(cotangent, reference::rms_norm(z, reference::lift(wx), kEps));
  });
  auto want_dw = reference::complex_step(wx, [&](const auto& z) {
    return reference::dot(cotangent, reference::rms_norm(reference::lift(x.values()), z, kEps));
  });
  for (size_t i = 0; i < want_dw.size(); ++i) want_dw[i] += dw_before[i];
  // dx is a difference of two terms of the size of rstd * w * dy; x has standard deviation 2.
  const double term = largest(rstd.values()) * largest(wx) * largest(cotangent) * std::max(1.0, largest(y.values()));
  expect_close(dx.values(), want_dx, largest(want_dx) * round_off(t) + 4 * term * statistic_error(dim), "dx");
  // Fixed chunks of at most 1024 rows are summed one after another: rows roundings of a partial sum.
  const double sum = static_cast<double>(rows) * largest(cotangent) * largest(x.values()) * largest(rstd.values());
  expect_close(dw.values(), want_dw,
               (sum + largest(want_dw)) * 0x1p-24 * (4 + std::sqrt(rows)) + sum * statistic_error(dim), "dw");
  Owned in_place = dy, dw2(1, dim, dw_before);
  ops::rms_norm_backward(exec, x, w, rstd, in_place, in_place, dw2, scratch);
  EXPECT_TRUE(in_place.same_bytes(dx));
  EXPECT_TRUE(dw2.same_bytes(dw));
}

TEST(RmsNorm, MatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t dim : {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 256, 300}) check_forward(3, dim, t);
      check_forward(0, 16, t);
      check_forward(1, 512, t);
    }
  }
}

TEST(RmsNorm, Gradients) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t dim : {1, 7, 8, 9, 16, 17, 65}) check_backward(2, dim, t);
      check_backward(0, 16, t);
      check_backward(1, 1, t);
    }
  }
}

// Without a weight the result is that of a weight of ones, bit for bit.
TEST(RmsNorm, NoWeightIsOnes) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t})
      for (int64_t dim : {1, 7, 8, 9, 33}) {
        const Exec exec(1);
        const Owned x = random(3, dim, 1, 2.0, t), dy = random(3, dim, 2, 1.0, t),
                    ones(1, dim, std::vector<double>(static_cast<size_t>(dim), 1.0));
        Owned y(3, dim, t), y1(3, dim, t), rstd(3, 1), dx(3, dim, t), dx1(3, dim, t), dw(1, dim);
        Arena scratch(1 << 16);
        ops::rms_norm_forward(exec, x, ones, kEps, y1, rstd);
        ops::rms_norm_backward(exec, x, ones, rstd, dy, dx1, dw, scratch);
        ops::rms_norm_forward(exec, x, CMat{}, kEps, y, rstd);
        ops::rms_norm_backward(exec, x, CMat{}, rstd, dy, dx, Mat{}, scratch);
        EXPECT_TRUE(y.same_bytes(y1) && dx.same_bytes(dx1)) << dim;
      }
  }
}

// Heads side by side are the rows of a matrix, and may lie in a wider one.
TEST(RmsNorm, HeadsShareAWeight) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t})
      for (const auto& shape : {std::pair<int64_t, int64_t>{3, 8}, {1, 20}, {5, 1}, {2, 17}, {4, 128}}) {
        const int64_t heads = shape.first, dim = shape.second;  // Clang 14 captures no structured binding
        SCOPED_TRACE(std::to_string(heads) + " heads of " + std::to_string(dim) + " " + dtype_name(t));
        const Exec exec(1);
        const int64_t rows = 4, cols = heads * dim, wide = cols + 5;
        const Owned x = random(rows, wide, 1, 2.0, t), dy = random(rows, wide, 2, 1.0, t), w = random(1, dim, 3);
        Owned y(rows, wide, t), dx(rows, wide, t), rstd(rows, heads + 2), dw = random(1, dim, 4);
        const auto block = [&](Owned& o) { return o.view().col_block(3, cols); };
        const auto seen = [&](const Owned& o) { return o.view().col_block(3, cols); };
        const Mat statistics = rstd.view().col_block(1, heads);
        // The same heads as rows, one after another.
        const auto gathered = [&](const Owned& o) {
          Owned g(rows * heads, dim, t);
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t h = 0; h < heads; ++h)
              std::memcpy(static_cast<char*>(g.view().row_block(r * heads + h, 1).data),
                          seen(o).row_block(r, 1).col_block(h * dim, dim).data,
                          static_cast<size_t>(dim * dtype_bytes(t)));
          return g;
        };
        const Owned x1 = gathered(x), dy1 = gathered(dy);
        Owned y1(rows * heads, dim, t), dx1(rows * heads, dim, t), rstd1(rows * heads, 1), dw1 = dw;
        Arena scratch(1 << 20);
        ops::rms_norm_forward(exec, seen(x), w, kEps, block(y), statistics);
        ops::rms_norm_backward(exec, seen(x), w, statistics, seen(dy), block(dx), dw, scratch);
        ops::rms_norm_forward(exec, x1, w, kEps, y1, rstd1);
        ops::rms_norm_backward(exec, x1, w, rstd1, dy1, dx1, dw1, scratch);
        EXPECT_TRUE(gathered(y).same_bytes(y1) && gathered(dx).same_bytes(dx1) && dw.same_bytes(dw1));
        EXPECT_EQ(statistics.f32(1)[heads - 1], rstd1.at(2 * heads - 1));
        EXPECT_EQ(y.at(0, 2), 0.0) << "the columns around stay as they are";
        EXPECT_EQ(y.at(0, 3 + cols), 0.0);
        EXPECT_THROW(ops::rms_norm_forward(exec, seen(x), w, kEps, block(y), rstd), ContractViolation);
      }
  }
}

TEST(RmsNorm, ZeroRowsAndTinyEps) {
  const Exec exec(1);
  const Owned x(2, 48), w = random(1, 48, 1), dy = random(2, 48, 2);
  Owned y = random(2, 48, 3), rstd(2, 1), dx(2, 48), dw(1, 48);
  ops::rms_norm_forward(exec, x, w, 1e-20f, y, rstd);
  EXPECT_EQ(largest(y.values()), 0.0);
  EXPECT_NEAR(rstd.at(0), 1e10, 1e4);
  Arena scratch(1 << 16);
  ops::rms_norm_backward(exec, x, w, rstd, dy, dx, dw, scratch);
  for (double v : dx.values()) EXPECT_TRUE(std::isfinite(v));
  for (double v : dw.values()) EXPECT_EQ(v, 0.0);
}

// Rows of a wider matrix, and results that do not depend on threads although several tasks add into dw.
TEST(RmsNorm, StridesAndThreads) {
  const int64_t rows = 2100, dim = 40;
  const Owned wide = random(rows, dim + 9, 1, 1.0, bf16_t), w = random(1, dim, 2),
              dy = random(rows, dim, 3, 1.0, bf16_t);
  const CMat x = wide.view().col_block(3, dim);
  Owned y[2], dx[2], dw[2], rstd(rows, 1);
  Arena scratch(1 << 20);
  for (int i = 0; i < 2; ++i) {
    const Exec exec(i ? 3 : 1);
    y[i] = Owned(rows, dim, bf16_t), dx[i] = Owned(rows, dim, bf16_t), dw[i] = Owned(1, dim);
    ops::rms_norm_forward(exec, x, w, kEps, y[i], rstd);
    ops::rms_norm_backward(exec, x, w, rstd, dy, dx[i], dw[i], scratch);
  }
  EXPECT_TRUE(y[0].same_bytes(y[1]) && dx[0].same_bytes(dx[1]) && dw[0].same_bytes(dw[1]));
  EXPECT_EQ(scratch.used(), 0u);
  double sum = 0;  // one column of dw, by hand
  for (int64_t r = 0; r < rows; ++r) sum += dy.at(r, 5) * wide.at(r, 8) * rstd.at(r);
  EXPECT_NEAR(dw[0].at(5), sum, 1e-3);
}

TEST(RmsNorm, DryRunTakesScratchOnly) {
  const Exec exec = Exec::dry_run(2);
  Arena arena = Arena::measuring();
  const Mat x = arena.mat(bf16_t, 4096, 64), w = arena.mat(f32_t, 1, 64), rstd = arena.mat(f32_t, 4096, 1);
  const size_t before = arena.used();
  ops::rms_norm_forward(exec, x, w, kEps, x, rstd);
  ops::rms_norm_backward(exec, x, w, rstd, x, x, w, arena);
  EXPECT_EQ(arena.used(), before);
  EXPECT_GT(arena.peak(), before);
}

}  // namespace
}  // namespace birkhoff::test
