#include "ops/rows/bias.h"

#include "reference/complex_step.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

void check_bias(int64_t rows, int64_t dim, DType t) {
  SCOPED_TRACE(std::to_string(rows) + "x" + std::to_string(dim) + " " + dtype_name(t));
  const Exec exec(1);
  const Owned before = random(rows, dim + 4, 1, 2.0, t), b = random(1, dim, 2), dy = random(rows, dim, 3, 1.0, t);
  Owned y = before, db = random(1, dim, 4);
  const auto shifted = [&](const auto& bias) {
    std::decay_t<decltype(bias)> out;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < dim; ++c) out.push_back(before.at(r, c + 1) + bias[static_cast<size_t>(c)]);
    return out;
  };
  std::vector<double> want_db =
      reference::complex_step(b.values(), [&](const auto& z) { return reference::dot(dy.values(), shifted(z)); });
  for (size_t c = 0; c < want_db.size(); ++c) want_db[c] += db.at(static_cast<int64_t>(c));
  Arena scratch(1 << 20);
  ops::bias_forward(exec, b, y.view().col_block(1, dim));
  ops::bias_backward(exec, dy, db, scratch);
  EXPECT_EQ(scratch.used(), 0u);
  std::vector<double> got;
  for (int64_t r = 0; r < rows; ++r) {
    EXPECT_EQ(y.at(r, 0), before.at(r, 0)) << "the columns around stay as they are";
    EXPECT_EQ(y.at(r, dim + 1), before.at(r, dim + 1));
    for (int64_t c = 0; c < dim; ++c) got.push_back(y.at(r, c + 1));
  }
  const std::vector<double> want = shifted(b.values());
  expect_close(got, want, largest(want) * (t == f32_t ? 0x1p-24 : 0x1p-8), "y");
  expect_close(db.values(), want_db, (static_cast<double>(rows) + 2) * 0x1p-23 * (1 + largest(want_db)), "db");
}

TEST(Bias, ForwardAndGradient) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t dim : {1, 7, 8, 9, 16, 17, 65}) check_bias(3, dim, t);
      check_bias(0, 16, t);
      check_bias(1, 1, t);
      check_bias(40, 3, t);
    }
  }
}

TEST(Bias, ThreadsDoNotMatter) {
  const Owned dy = random(2100, 40, 1, 1.0, bf16_t), b = random(1, 40, 2);
  Owned y[2], db[2];
  Arena scratch(1 << 20);
  for (int i = 0; i < 2; ++i) {
    const Exec exec(i ? 3 : 1);
    y[i] = dy, db[i] = Owned(1, 40);
    ops::bias_forward(exec, b, y[i]);
    ops::bias_backward(exec, dy, db[i], scratch);
  }
  EXPECT_TRUE(y[0].same_bytes(y[1]) && db[0].same_bytes(db[1]));
  double sum = 0;
  for (int64_t r = 0; r < 2100; ++r) sum += dy.at(r, 5);
  EXPECT_NEAR(db[0].at(5), sum, 1e-3);
}

TEST(Bias, DryRunTakesScratchOnly) {
  Arena arena = Arena::measuring();
  const Mat x = arena.mat(bf16_t, 4096, 64), b = arena.mat(f32_t, 1, 64);
  const size_t before = arena.used();
  ops::bias_forward(Exec::dry_run(2), b, x);
  ops::bias_backward(Exec::dry_run(2), x, b, arena);
  EXPECT_EQ(arena.used(), before);
  EXPECT_GT(arena.peak(), before);
}

}  // namespace
}  // namespace birkhoff::test
