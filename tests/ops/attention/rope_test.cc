#include "ops/attention/rope.h"

#include "reference/complex_step.h"
#include "reference/llama3_rope.h"
#include "reference/rope.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

using ops::RopeLayout;
using ops::RopeScaling;

constexpr int kPositions = 300;

RopeScaling yarn(double factor, int64_t original, double mscale, double mscale_all_dim) {
  RopeScaling s;
  s.kind = RopeScaling::Kind::yarn;
  s.factor = factor, s.original_max_position = original, s.mscale = mscale, s.mscale_all_dim = mscale_all_dim;
  return s;
}

// cos and sin are right to half an ulp, each product and sum rounds once: 3 roundings of at most |a| + |b|, and the
// storage.
double tolerance(double magnitude, DType t) { return 2 * magnitude * (3 * 0x1p-24 + (t == f32_t ? 0x1p-24 : 0x1p-9)); }

void check(const reference::Rope& ref, const RopeScaling& scaling, RopeLayout layout, int heads, DType t) {
  SCOPED_TRACE("dim " + std::to_string(ref.dim) + " heads " + std::to_string(heads) + " " + dtype_name(t));
  const Exec exec(1);
  const auto table = ops::make_rope_table(kPositions, ref.dim, ref.theta, scaling);
  ASSERT_EQ(table.positions(), kPositions);
  const int stride = ref.dim + 3, first = 2, rows = 5;
  const std::vector<int32_t> pos = {0, 1, 299, 17, 17};
  const Owned x = random(rows, first + heads * stride, 7, 1.0, t);
  Owned y = x;
  ops::rope_apply(exec, table, layout, pos, y, {first, heads, stride});
  std::vector<double> want = x.values();
  for (int r = 0; r < rows; ++r) {
    for (int h = 0; h < heads; ++h) {
      const size_t at = static_cast<size_t>(r * (first + heads * stride) + first + h * stride);
      const std::vector<double> in(want.begin() + static_cast<long>(at),
                                   want.begin() + static_cast<long>(at) + ref.dim);
      const auto out = ref.rotate(in, pos[static_cast<size_t>(r)], layout == RopeLayout::interleaved);
      std::copy(out.begin(), out.end(), want.begin() + static_cast<long>(at));  // the columns between stay as they are
    }
  }
  const double limit = tolerance(largest(x.values()) * ref.magnitude, t);
  expect_close(y.values(), want, limit, "rotated");
  if (ref.magnitude == 1) {
    ops::rope_apply(exec, table, layout, pos, y, {first, heads, stride}, true);
    expect_close(y.values(), x.values(), 2 * limit, "rotated back");
  }
}

TEST(Rope, MatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (RopeLayout layout : {RopeLayout::interleaved, RopeLayout::half_split}) {
        for (int dim : {2, 4, 14, 16, 18, 30, 32, 34, 64}) check({.dim = dim, .theta = 1e4}, {}, layout, 3, t);
        check({.dim = 16, .theta = 1e4}, {}, layout, 1, t);
        check({.dim = 16, .theta = 1e4}, {}, layout, 0, t);
        check({.dim = 32, .theta = 1e5, .linear = 4}, {.kind = RopeScaling::Kind::linear, .factor = 4}, layout, 2, t);
        check({.dim = 64, .theta = 1e4, .yarn = 40, .original = 4096}, yarn(40, 4096, 0.707, 0.707), layout, 2, t);
        check({.dim = 64, .theta = 1e4, .yarn = 8, .original = 512, .magnitude = 1 + 0.1 * std::log(8.0)},
              yarn(8, 512, 1, 0), layout, 2, t);
      }
    }
  }
}

// The backward rotates the other way; with a magnitude it multiplies by it once more.
TEST(Rope, InverseIsTheDerivative) {
  const Exec exec(1);
  const std::vector<int32_t> pos = {0, 1, 299};
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t})
      for (RopeLayout layout : {RopeLayout::interleaved, RopeLayout::half_split})
        for (int dim : {2, 14, 16, 18, 34}) {
          const reference::Rope ref{
              .dim = dim, .theta = 1e4, .yarn = 8, .original = 512, .magnitude = 1 + 0.1 * std::log(8.0)};
          const auto table = ops::make_rope_table(kPositions, dim, ref.theta, yarn(8, 512, 1, 0));
          const Owned dy = random(3, dim, 5, 1, t);
          Owned dx = dy;
          ops::rope_apply(exec, table, layout, pos, dx, {0, 1, dim}, /*inverse=*/true);
          std::vector<double> want;
          for (int64_t r = 0; r < 3; ++r) {
            const auto rows = dy.values();
            const std::vector<double> cotangent(rows.begin() + r * dim, rows.begin() + (r + 1) * dim);
            const auto d = reference::complex_step(std::vector<double>(static_cast<size_t>(dim)), [&](const auto& z) {
              return reference::dot(cotangent,
                                    ref.rotate(z, pos[static_cast<size_t>(r)], layout == RopeLayout::interleaved));
            });
            want.insert(want.end(), d.begin(), d.end());
          }
          // fp32 arithmetic, then one rounding to the 8 bits of bf16: half a unit in the last place of the result.
          const double stored = t == f32_t ? 0 : 0x1p-8 * largest(want);
          expect_close(dx.values(), want, tolerance(largest(dy.values()) * ref.magnitude, f32_t) + stored, "dx");
        }
  }
}

TEST(Rope, YarnPublishedNumbers) {
  const auto v2 = ops::yarn_range(64, 1e4, yarn(40, 4096, 0.707, 0.707));
  EXPECT_EQ(v2.low, 10);
  EXPECT_EQ(v2.high, 23);
  const auto v4 = ops::yarn_range(64, 160000, yarn(16, 65536, 1, 1));
  EXPECT_EQ(v4.low, 15);
  EXPECT_EQ(v4.high, 25);
  const double m2 = ops::yarn_mscale(40, 0.707), m3 = ops::yarn_mscale(40, 1.0);
  EXPECT_NEAR(m2 * m2, 1.5896262, 5e-8);
  EXPECT_NEAR(m3 * m3, 1.8738542, 5e-8);
  EXPECT_NEAR(m2 * m2 / std::sqrt(192.0), 0.11472139, 5e-9);
  EXPECT_NEAR(m3 * m3 / std::sqrt(192.0), 0.13523378, 5e-9);
  EXPECT_EQ(ops::yarn_mscale(1.0, 1.0), 1.0);
  EXPECT_EQ(ops::yarn_mscale(0.5, 1.0), 1.0);
}

// models.md A.4: of the released values the pairs 0-28 are kept, 29-34 mixed, the rest slowed.
TEST(Rope, Llama3Frequencies) {
  const auto scaling = [](double factor, int64_t original) {
    RopeScaling s;
    s.kind = RopeScaling::Kind::llama3, s.factor = factor, s.original_max_position = original;
    return s;
  };
  for (const reference::Llama3Rope& ref :
       {reference::Llama3Rope{128, 5e5}, {64, 5e5, 32}, {12, 5e5, 8, 1, 4, 96}, {12, 1e4, 3, 0.5, 2, 40}}) {
    RopeScaling s = scaling(ref.factor, static_cast<int64_t>(ref.original));
    s.low_freq_factor = ref.low, s.high_freq_factor = ref.high;
    const std::vector<double> got = ops::rope_frequencies(ref.dim, ref.theta, s);
    ASSERT_EQ(got.size(), static_cast<size_t>(ref.dim / 2));
    for (int i = 0; i < ref.dim / 2; ++i) {
      const double want = ref.frequency(i);
      EXPECT_NEAR(got[static_cast<size_t>(i)], want, 1e-12 * want) << ref.dim << " pair " << i;
    }
  }
  const std::vector<double> kept = ops::rope_frequencies(128, 5e5, {}),
                            got = ops::rope_frequencies(128, 5e5, scaling(8, 8192));
  const double mixed[] = {0.803621, 0.592849, 0.421151, 0.281283, 0.167343, 0.074527};
  for (size_t i = 0; i < 64; ++i) {
    const double share = i < 29 ? 1 : i < 35 ? mixed[i - 29] : 0;
    EXPECT_NEAR(got[i] / kept[i], share + (1 - share) / 8, 1e-6) << i;
  }
  // The table holds their angles, and lengths stay.
  const ops::RopeTable table = ops::make_rope_table(kPositions, 128, 5e5, scaling(8, 8192));
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(table.cos[299 * 64 + i], std::cos(299 * got[i]), 0x1p-23) << i;
  EXPECT_EQ(ops::rope_gain(scaling(8, 8192)), 1);
}

// The oracle's gains (models.md A.4): what follows from the factor, and what a file says in its place.
TEST(Rope, YarnGain) {
  RopeScaling s = yarn(4, 32768, 1, 0);
  EXPECT_NEAR(ops::rope_gain(s), 1.138629, 5e-7);
  const auto range = ops::yarn_range(128, 1e6, s);
  EXPECT_EQ(range.low, 23);
  EXPECT_EQ(range.high, 40);
  s.attention_factor = 0.75;
  EXPECT_EQ(ops::rope_gain(s), 0.75);
  const ops::RopeTable table = ops::make_rope_table(2, 16, 1e6, s);
  EXPECT_EQ(table.cos[0], 0.75f);
  s.kind = RopeScaling::Kind::linear;
  EXPECT_EQ(ops::rope_gain(s), 1);
}

// A range of no width is widened by 0.001 so that the ramp is a step and not 0/0.
TEST(Rope, YarnDegenerateRange) {
  const auto range = ops::yarn_range(2, 1e4, yarn(4, 6, 1, 1));
  EXPECT_LT(range.low, range.high);
  for (float c : ops::make_rope_table(3, 2, 1e4, yarn(4, 6, 1, 1)).cos) EXPECT_TRUE(std::isfinite(c));
}

// Scores depend on the difference of positions only.
TEST(Rope, RelativePosition) {
  const Exec exec(1);
  const auto table = ops::make_rope_table(kPositions, 32, 1e4, {});
  const Owned q = random(1, 32, 1), k = random(1, 32, 2);
  const auto score = [&](int32_t i, int32_t j) {
    Owned a = q, b = k;
    ops::rope_apply(exec, table, RopeLayout::interleaved, std::vector<int32_t>{i}, a, {0, 1, 32});
    ops::rope_apply(exec, table, RopeLayout::interleaved, std::vector<int32_t>{j}, b, {0, 1, 32});
    double s = 0;
    for (int64_t c = 0; c < 32; ++c) s += a.at(c) * b.at(c);
    return s;
  };
  EXPECT_NEAR(score(20, 3), score(217, 200), 64 * 0x1p-22);
}

TEST(Rope, ThreadsAndEmpty) {
  const auto table = ops::make_rope_table(kPositions, 16, 1e4, {});
  std::vector<int32_t> pos(1500);
  for (size_t i = 0; i < pos.size(); ++i) pos[i] = static_cast<int32_t>(i * 7 % kPositions);
  Owned a = random(1500, 4 * 16, 1, 1.0, bf16_t), b = a, none(0, 16);
  ops::rope_apply(Exec(1), table, RopeLayout::interleaved, pos, a, {0, 4, 16});
  ops::rope_apply(Exec(3), table, RopeLayout::interleaved, pos, b, {0, 4, 16});
  EXPECT_TRUE(a.same_bytes(b));
  ops::rope_apply(Exec(1), table, RopeLayout::half_split, {}, none, {0, 1, 16});
  EXPECT_THROW(
      ops::rope_apply(Exec(1), table, RopeLayout::interleaved, std::vector<int32_t>(1500, kPositions), a, {0, 4, 16}),
      ContractViolation);
  EXPECT_THROW(ops::rope_apply(Exec(1), table, RopeLayout::interleaved, pos, a, {0, 5, 16}), ContractViolation);
}

}  // namespace
}  // namespace birkhoff::test
