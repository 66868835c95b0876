#include "support/matrix.h"

#include <algorithm>

namespace birkhoff::test {

Owned::Owned(int64_t rows, int64_t cols, const std::vector<double>& values, DType dtype) : Owned(rows, cols, dtype) {
  for (int64_t i = 0; i < rows * cols; ++i) set(i, values[static_cast<size_t>(i)]);
}

std::vector<double> Owned::values() const {
  std::vector<double> v(static_cast<size_t>(rows_ * cols_));
  for (size_t i = 0; i < v.size(); ++i) v[i] = at(static_cast<int64_t>(i));
  return v;
}

Owned random(int64_t rows, int64_t cols, uint64_t seed, double sd, DType dtype) {
  Owned m(rows, cols, dtype);
  const Rng rng(seed);
  for (int64_t i = 0; i < rows * cols; ++i) m.set(i, sd * rng.normal(static_cast<uint64_t>(i)));
  return m;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want, double limit,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::isfinite(got[i]) ? std::abs(got[i] - want[i]) : INFINITY;
    if (d > worst) worst = d, at = i;
  }
  EXPECT_LE(worst, limit) << what << ": element " << at
                          << (got.empty()
                                  ? ""
                                  : " is " + std::to_string(got[at]) + ", expected " + std::to_string(want[at]));
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::abs(x));
  return m;
}

}  // namespace birkhoff::test
