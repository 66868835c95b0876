// What the tests of the properties of mHC share: four streams, matrices of random logits, sums of their lines.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/residual/residual.h"
#include "ops/residual/sinkhorn.h"
#include "support/matrix.h"

namespace birkhoff {

inline constexpr int64_t kN = 4;
inline constexpr float kEps = 1e-6f;

inline ops::ResidualSpec mhc(int64_t n, int64_t dim) {
  ops::ResidualSpec s;
  s.kind = ops::ResidualKind::mhc, s.streams = n, s.dim = dim;
  return s;
}

class Properties : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::amx); }
  // The stored matrices [draws, n*n] of logits with the given spread.
  test::Owned sinkhorn(const test::Owned& z, int64_t n = kN, int iters = 20,
                       ops::HcConvention c = ops::HcConvention::v4) {
    test::Owned out(z.size() / (n * n), n * n);
    ops::sinkhorn_forward(exec_, c, n, iters, c == ops::HcConvention::v4 ? kEps : 0.f, z, out);
    return out;
  }
  Exec exec_{2};
  Arena scratch_{size_t{64} << 20};
};

// Sum over the second index (a row of the stored matrix) or over the first, of matrix m.
inline double line_sum(const test::Owned& s, int64_t m, int64_t at, bool row, int64_t n = kN) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += s.at(m, row ? at * n + i : i * n + at);
  return sum;
}
// Errors of the sums of one axis over all matrices, ascending.
inline std::vector<double> line_errors(const test::Owned& s, bool row, int64_t n = kN) {
  std::vector<double> e;
  for (int64_t m = 0; m < s.size() / (n * n); ++m)
    for (int64_t i = 0; i < n; ++i) e.push_back(std::abs(line_sum(s, m, i, row, n) - 1));
  std::sort(e.begin(), e.end());
  return e;
}
inline double quantile(const std::vector<double>& sorted, double q) {
  return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

}  // namespace birkhoff
