#include "ops/gemm/gemm.h"

#include <complex>
#include <limits>

#include "ops/gemm/weight_grad.h"
#include "reference/gemm.h"
#include "support/matrix.h"

namespace birkhoff {
namespace {

using ops::Packed;
using ops::Store;
using test::Owned;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Room for everything a test packs; what is taken starts as NaN, so that padding the packer forgets shows.
struct Memory {
  Arena arena{size_t{64} << 20};
  Packed take(DType dtype, int64_t k, int64_t n) {
    const Packed p = Packed::take(arena, dtype, k, n);
    std::memset(p.data, 0xff, static_cast<size_t>(Packed::bytes(dtype, k, n)));
    return p;
  }
};

// A random matrix inside a wider one of NaN: reading beyond the view poisons the result.
struct Framed {
  Framed(int64_t rows, int64_t cols, uint64_t seed, DType dtype, int64_t pad) : all(rows + 1, cols + pad, dtype) {
    const Owned inner = test::random(rows, cols, seed, 1.0, dtype);
    for (int64_t i = 0; i < all.size(); ++i) all.set(i, kNan);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) all.set(r * (cols + pad) + c, inner.at(r, c));
    values = inner.values();
    view = all.view().row_block(0, rows).col_block(0, cols);
  }
  Owned all;
  std::vector<double> values;
  Mat view;
};

Packed packed_transposed(Memory& m, const Exec& exec, CMat w, DType dtype) {
  const Packed p = m.take(dtype, w.cols, w.rows);
  ops::pack_transposed(exec, w, p);
  return p;
}

size_t u(int64_t i) { return static_cast<size_t>(i); }

struct Types {
  DType a, b, c;
};
std::ostream& operator<<(std::ostream& s, const Types& t) {
  return s << dtype_name(t.a) << " x " << dtype_name(t.b) << " -> " << dtype_name(t.c);
}
const std::vector<Types> kTypes = {{f32_t, f32_t, f32_t},
                                   {f32_t, f32_t, bf16_t},
                                   {bf16_t, f32_t, f32_t},
                                   {bf16_t, bf16_t, f32_t},
                                   {bf16_t, bf16_t, bf16_t}};

struct Shape {
  int64_t m, k, n;
};
std::ostream& operator<<(std::ostream& s, const Shape& x) { return s << x.m << "x" << x.k << "x" << x.n; }
// Zeros and ones, panels, tiles and blocks of K +- 1, several tasks, several chunks of K.
const std::vector<Shape> kShapes = {{0, 5, 7},    {3, 0, 5},      {4, 6, 0},      {1, 1, 1},    {2, 3, 15},
                                    {11, 2, 16},  {12, 31, 17},   {13, 32, 31},   {15, 33, 32}, {16, 34, 33},
                                    {17, 64, 48}, {31, 65, 49},   {33, 63, 70},   {64, 96, 64}, {50, 7, 100},
                                    {1, 300, 90}, {40, 1100, 50}, {257, 40, 130}, {5, 1537, 3}, {70, 128, 80}};

class Gemm : public testing::TestWithParam<Isa> {
 protected:
  test::IsaScope scope{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Isas, Gemm, testing::ValuesIn(test::machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

TEST_P(Gemm, LinearIsXTimesWTransposed) {
  Exec exec(2);
  for (const Types& t : kTypes) {
    for (const Shape& s : kShapes) {
      Memory memory;
      const Framed x(s.m, s.k, 1, t.a, 3), w(s.n, s.k, 2, t.b, 5);
      const Packed b = packed_transposed(memory, exec, w.view, t.b);
      Framed y(s.m, s.n, 3, t.c, 1);
      ops::gemm(exec, x.view, b, y.view);
      const auto want = reference::linear(x.values, w.values, u(s.m), u(s.k), u(s.n));
      std::vector<double> got;
      for (int64_t i = 0; i < s.m; ++i) {
        for (int64_t j = 0; j < s.n; ++j) got.push_back(y.all.at(i, j));
        EXPECT_TRUE(std::isnan(y.all.at(i, s.n))) << "written past the last column";
      }
      for (int64_t j = 0; j <= s.n; ++j) EXPECT_TRUE(std::isnan(y.all.at(s.m, j))) << "written past the last row";
      const double magnitude = test::largest(x.values) * test::largest(w.values);
      std::ostringstream what;
      what << t << " " << s;
      test::expect_close(got, want, test::sum_tolerance(s.k, magnitude, t.b, t.c), what.str());
    }
  }
}

TEST_P(Gemm, AccumulatesAndMultipliesByPackedRows) {
  Exec exec(2);
  for (const Types& t : kTypes) {
    if (t.c == bf16_t) continue;
    for (const Shape& s : kShapes) {
      Memory memory;
      const Framed a(s.m, s.k, 1, t.a, 0), b(s.k, s.n, 2, t.b, 5);
      const Packed p = memory.take(t.b, s.k, s.n);
      ops::pack(exec, b.view, p);
      Owned c = test::random(s.m, s.n, 3);
      auto want = c.values();
      const auto sum = reference::product(a.values, b.values, u(s.m), u(s.k), u(s.n));
      for (size_t i = 0; i < want.size(); ++i) want[i] += sum[i];
      ops::gemm(exec, a.view, p, c, Store::accumulate);
      const double magnitude = test::largest(a.values) * test::largest(b.values) + 4;
      std::ostringstream what;
      what << t << " " << s;
      test::expect_close(c.values(), want, test::sum_tolerance(s.k + 1, magnitude, t.b), what.str());
    }
  }
}

TEST_P(Gemm, PacksFp32AndBf16WeightsAlike) {
  Exec exec(2);
  for (const DType to : {f32_t, bf16_t}) {
    for (const Shape& s : {Shape{0, 33, 17}, {0, 64, 32}, {0, 1, 1}, {0, 95, 47}}) {
      const Owned rounded = test::random(s.k, s.n, 1, 1.0, bf16_t), wide(s.k, s.n, rounded.values());
      Memory m;
      const auto bytes = u(Packed::bytes(to, s.k, s.n));
      const Packed p = m.take(to, s.k, s.n), q = m.take(to, s.k, s.n);
      ops::pack(exec, rounded, p);
      ops::pack(exec, wide, q);
      EXPECT_EQ(std::memcmp(p.data, q.data, bytes), 0);
      const Owned turned(s.n, s.k, reference::transpose(rounded.values(), u(s.k), u(s.n)), bf16_t),
          turned_wide(s.n, s.k, turned.values());
      for (const CMat w : {turned.view(), turned_wide.view()}) {
        const Packed r = packed_transposed(m, exec, w, to);
        EXPECT_EQ(std::memcmp(p.data, r.data, bytes), 0);
      }
    }
  }
}

// Bits of a row, wherever it stands and whatever shares the call.
TEST_P(Gemm, RowIsIndependentOfItsNeighbours) {
  Exec exec(2);
  for (const Types& t : kTypes) {
    for (const Shape& s : {Shape{129, 70, 83}, {129, 1100, 40}, {40, 7, 16}}) {
      Memory memory;
      const Owned w = test::random(s.n, s.k, 2, 1.0, t.b), x = test::random(s.m, s.k, 1, 1.0, t.a);
      const Packed b = packed_transposed(memory, exec, w, t.b);
      Owned all(s.m, s.n, t.c);
      ops::gemm(exec, x, b, all);
      const auto row_bytes = u(s.n * dtype_bytes(t.c));
      for (const int64_t rows : {1, 2, 3, 11, 16, 17, 33, 128}) {
        for (const int64_t first : {int64_t{0}, int64_t{1}, s.m - rows}) {
          if (first < 0 || first + rows > s.m) continue;
          Owned part(rows, s.n, t.c);
          ops::gemm(exec, x.view().row_block(first, rows), b, part);
          const Mat part_view = part;
          ASSERT_EQ(std::memcmp(part_view.data, static_cast<const char*>(CMat(all).data) + u(first) * row_bytes,
                                u(rows) * row_bytes),
                    0)
              << t << " " << s << ": rows " << first << " + " << rows;
        }
      }
      // Fewer columns: the first 35 of the product with the first 35 rows of w.
      const int64_t n = std::min<int64_t>(35, s.n);
      const Packed narrow = packed_transposed(memory, exec, w.view().row_block(0, n), t.b);
      Owned part(s.m, n, t.c);
      ops::gemm(exec, x, narrow, part);
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < n; ++j) ASSERT_EQ(part.at(i, j), all.at(i, j)) << t << " " << s;
    }
  }
}

TEST_P(Gemm, GroupsEqualSeparateProducts) {
  Exec exec(2);
  const std::vector<int32_t> offsets = {0, 5, 5, 38, 39, 39, 207};
  const int64_t k = 50, n = 40, rows = 210;
  for (const Types& t : kTypes) {
    Memory memory;
    const Owned x = test::random(rows, k, 1, 1.0, t.a);
    Owned got = test::random(rows, n, 9, 1.0, t.c), want = got;
    std::vector<Packed> b;
    for (size_t g = 0; g + 1 < offsets.size(); ++g) {
      b.push_back(packed_transposed(memory, exec, test::random(n, k, 10 + g, 1.0, t.b), t.b));
      const int64_t count = offsets[g + 1] - offsets[g];
      ops::gemm(exec, x.view().row_block(offsets[g], count), b[g], want.view().row_block(offsets[g], count));
    }
    ops::grouped_gemm(exec, x, offsets, b, got);
    EXPECT_TRUE(got.same_bytes(want)) << t;  // includes the rows that belong to no group
  }
}

TEST_P(Gemm, ThreadsDoNotChangeBits) {
  for (const Types& t : kTypes) {
    const Owned x = test::random(300, 600, 1, 1.0, t.a), w = test::random(200, 600, 2, 1.0, t.b);
    std::vector<Owned> y;
    for (const int threads : {1, 3}) {
      Exec exec(threads);
      Memory memory;
      y.emplace_back(300, 200, t.c);
      ops::gemm(exec, x, packed_transposed(memory, exec, w, t.b), y.back());
    }
    EXPECT_TRUE(y[0].same_bytes(y[1])) << t;
  }
}

const std::vector<std::pair<DType, DType>> kGradTypes = {{f32_t, f32_t}, {f32_t, bf16_t}, {bf16_t, bf16_t}};
// T, K, N: zeros and ones, tails, several chunks and parts of T, several blocks of dw, a narrow projection.
const std::vector<Shape> kGradShapes = {{0, 5, 3},    {1, 1, 1},      {2, 17, 15},   {31, 16, 33},
                                        {33, 33, 7},  {64, 64, 32},   {129, 7, 40},  {300, 100, 24},
                                        {700, 40, 9}, {2100, 24, 30}, {70, 600, 24}, {40, 70, 300}};

TEST_P(Gemm, WeightGradIsDyTransposedTimesX) {
  Exec exec(2);
  Arena scratch(size_t{16} << 20);
  for (const auto& [dy_type, x_type] : kGradTypes) {
    for (const Shape& s : kGradShapes) {
      for (const Store store : {Store::accumulate, Store::assign}) {
        const Framed dy(s.m, s.n, 1, dy_type, 3), x(s.m, s.k, 2, x_type, 1);
        Framed dw(s.n, s.k, 3, f32_t, 2);
        auto want =
            reference::product(reference::transpose(dy.values, u(s.m), u(s.n)), x.values, u(s.n), u(s.m), u(s.k));
        if (store == Store::accumulate)
          for (size_t i = 0; i < want.size(); ++i) want[i] += dw.values[i];
        ops::gemm_weight_grad(exec, dy.view, x.view, dw.view, scratch, store);
        std::vector<double> got;
        for (int64_t i = 0; i < s.n; ++i) {
          for (int64_t j = 0; j < s.k; ++j) got.push_back(dw.all.at(i, j));
          EXPECT_TRUE(std::isnan(dw.all.at(i, s.k)));
        }
        const double magnitude = test::largest(dy.values) * test::largest(x.values) + 4;
        std::ostringstream what;
        what << dtype_name(dy_type) << " " << dtype_name(x_type) << " " << s;
        test::expect_close(got, want, test::sum_tolerance(s.m + 1, magnitude, x_type), what.str());
      }
    }
  }
  EXPECT_EQ(scratch.used(), 0u);
}

TEST_P(Gemm, GroupedWeightGradSumsEachGroup) {
  Exec exec(2);
  Arena scratch(size_t{16} << 20);
  const std::vector<int32_t> offsets = {0, 5, 5, 38, 39, 639, 700};
  const int64_t n = 40, k = 50, rows = 702;
  for (const auto& [dy_type, x_type] : kGradTypes) {
    const Owned dy = test::random(rows, n, 1, 1.0, dy_type), x = test::random(rows, k, 2, 1.0, x_type);
    std::vector<Owned> got, want;
    for (size_t g = 0; g + 1 < offsets.size(); ++g)
      got.push_back(test::random(n, k, 20 + g)), want.push_back(got.back());
    std::vector<Mat> dw(got.begin(), got.end());
    ops::grouped_weight_grad(exec, dy, x, offsets, dw, scratch);
    for (size_t g = 0; g < dw.size(); ++g) {
      const int64_t count = offsets[g + 1] - offsets[g];
      ops::gemm_weight_grad(exec, dy.view().row_block(offsets[g], count), x.view().row_block(offsets[g], count),
                            want[g], scratch);
      const double magnitude = test::largest(dy.values()) * test::largest(x.values()) + 4;
      test::expect_close(got[g].values(), want[g].values(), test::sum_tolerance(count + 1, magnitude, x_type),
                         "group " + std::to_string(g));
      if (count == 0) {
        EXPECT_TRUE(got[g].same_bytes(want[g]));
      }
    }
    ops::grouped_weight_grad(exec, dy, x, offsets, dw, scratch, Store::assign);
    EXPECT_EQ(test::largest(got[1].values()), 0.0);
  }
}

TEST_P(Gemm, ThreadsDoNotChangeWeightGradBits) {
  for (const auto& [dy_type, x_type] : kGradTypes) {
    const Owned dy = test::random(1500, 70, 1, 1.0, dy_type), x = test::random(1500, 90, 2, 1.0, x_type);
    std::vector<Owned> dw;
    for (const int threads : {1, 3}) {
      Exec exec(threads);
      Arena scratch(size_t{16} << 20);
      dw.emplace_back(70, 90);
      ops::gemm_weight_grad(exec, dy, x, dw.back(), scratch);
    }
    EXPECT_TRUE(dw[0].same_bytes(dw[1]));
  }
}

// y = x w^T: the adjoint formulas the kernels implement, against the complex step of <cotangent, y>.
TEST_P(Gemm, BackwardMatchesComplexStep) {
  using C = std::complex<double>;
  const int64_t t = 19, k = 21, n = 18;
  const Owned x = test::random(t, k, 1), w = test::random(n, k, 2), dy = test::random(t, n, 3);
  Exec exec(2);
  Memory memory;
  Arena scratch(size_t{1} << 20);
  Owned dx(t, k), dw(n, k);
  const Packed p = memory.take(f32_t, n, k);
  ops::pack(exec, w, p);
  ops::gemm(exec, dy, p, dx);
  ops::gemm_weight_grad(exec, dy, x, dw, scratch);
  const auto cotangent = dy.values();
  const auto slope = [&](bool of_x, size_t at) {
    const auto xv = x.values(), wv = w.values();
    std::vector<C> xc(xv.begin(), xv.end()), wc(wv.begin(), wv.end());
    (of_x ? xc : wc)[at] += C(0, 1e-50);
    const auto y = reference::linear(xc, wc, u(t), u(k), u(n));
    C loss = 0;
    for (size_t i = 0; i < y.size(); ++i) loss += cotangent[i] * y[i];
    return loss.imag() / 1e-50;
  };
  std::vector<double> want_dx, want_dw;
  for (int64_t i = 0; i < t * k; ++i) want_dx.push_back(slope(true, u(i)));
  for (int64_t i = 0; i < n * k; ++i) want_dw.push_back(slope(false, u(i)));
  const double magnitude = test::largest(cotangent) * std::max(test::largest(x.values()), test::largest(w.values()));
  test::expect_close(dx.values(), want_dx, test::sum_tolerance(n, magnitude), "dx");
  test::expect_close(dw.values(), want_dw, test::sum_tolerance(t, magnitude), "dw");
}

TEST(GemmContract, RefusesMismatchedOperands) {
  Exec exec(1);
  Memory memory;
  Arena scratch(size_t{1} << 20);
  const Packed b = packed_transposed(memory, exec, test::random(4, 8, 1), f32_t);
  const Packed half = packed_transposed(memory, exec, test::random(4, 8, 1), bf16_t);
  Owned x(3, 8), y(3, 4), y16(3, 4, bf16_t), dw16(4, 8, bf16_t);
  EXPECT_THROW(ops::gemm(exec, Owned(3, 7), b, y), ContractViolation);
  EXPECT_THROW(ops::gemm(exec, Owned(2, 8), b, y), ContractViolation);
  EXPECT_THROW(ops::gemm(exec, x, half, y), ContractViolation);  // bf16 weights need bf16 activations
  EXPECT_THROW(ops::gemm(exec, x, b, y16, Store::accumulate), ContractViolation);
  EXPECT_THROW(ops::pack(exec, x, b), ContractViolation);
  EXPECT_THROW(ops::gemm_weight_grad(exec, y16, x, Owned(4, 8), scratch), ContractViolation);
  EXPECT_THROW(ops::gemm_weight_grad(exec, y, x, dw16, scratch), ContractViolation);
  const std::vector<int32_t> down = {0, 2, 1}, beyond = {0, 2, 4};
  const std::vector<Packed> two = {b, b};
  EXPECT_THROW(ops::grouped_gemm(exec, x, down, two, y), ContractViolation);
  EXPECT_THROW(ops::grouped_gemm(exec, x, beyond, two, y), ContractViolation);
}

TEST(GemmContract, DryRunPlansTheScratchOfARealRun) {
  const int64_t t = 2048, n = 48, k = 64;
  Exec dry = Exec::dry_run(1);
  Arena plan = Arena::measuring();
  const Packed b = Packed::take(plan, bf16_t, k, n);
  const Mat x = plan.mat(bf16_t, t, k), y = plan.mat(bf16_t, t, n), w = plan.mat(f32_t, n, k);
  ops::pack_transposed(dry, w, b);
  ops::gemm(dry, x, b, y);
  const size_t before = plan.used();
  ops::gemm_weight_grad(dry, y, x, w, plan);
  EXPECT_EQ(plan.used(), before);
  EXPECT_GT(plan.peak(), before);  // this shape cuts T
  EXPECT_EQ(static_cast<int64_t>(plan.peak() - before), ops::weight_grad_scratch_bytes(bf16_t, t, n, k));
}

}  // namespace
}  // namespace birkhoff
