#include "lab/compare/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace birkhoff::lab {
namespace {

// Continued fraction of the incomplete beta function (DLMF 8.17.22) by the modified method of Lentz; converges fast for
// x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kEnough = 1e-16;
  constexpr int kMost = 10000;
  const auto away = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away(1 - (a + b) * x / (a + 1)), f = d;
  for (int m = 1; m <= kMost; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double step = 1;
    for (const double term : {even, odd}) {
      d = 1 / away(1 + term * d);
      c = away(1 + term / c);
      step = c * d;
      f *= step;
    }
    if (std::abs(step - 1) < kEnough) break;
  }
  return f;
}

// I_x(a, b)
double regularised_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

}  // namespace

double student_t_cdf(double t, double df) {
  BK_CHECK(df > 0);
  const double tail = 0.5 * regularised_beta(df / 2, 0.5, df / (df + t * t));
  return t > 0 ? 1 - tail : tail;
}

double student_t_quantile(double p, double df) {
  BK_CHECK(p > 0 && p < 1);
  if (p == 0.5) return 0;
  if (p < 0.5) return -student_t_quantile(1 - p, df);
  double low = 0, high = 1;
  while (student_t_cdf(high, df) < p) high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-13 * high; ++i) {
    const double middle = (low + high) / 2;
    (student_t_cdf(middle, df) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

Mean mean_of(const std::vector<double>& values) {
  Mean m;
  m.n = static_cast<int64_t>(values.size());
  const auto n = static_cast<double>(m.n);
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  m.mean = m.n ? sum / n : NAN;
  for (const double v : values) squares += (v - m.mean) * (v - m.mean);
  m.deviation = m.n > 1 ? std::sqrt(squares / (n - 1)) : NAN;
  m.error = m.deviation / std::sqrt(n);
  return m;
}

Difference paired_difference(const std::vector<double>& a, const std::vector<double>& b, double level) {
  BK_CHECK_EQ(a.size(), b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(b[i] - a[i]);
  Difference d{mean_of(differences), NAN, NAN};
  if (d.mean.n < 2) return d;
  const double reach = student_t_quantile(0.5 + level / 2, static_cast<double>(d.mean.n - 1)) * d.mean.error;
  d.low = d.mean.mean - reach;
  d.high = d.mean.mean + reach;
  return d;
}

double combinations(int64_t n, int64_t k) {
  if (k < 0 || k > n) return 0;
  double c = 1;
  for (int64_t i = 1; i <= std::min(k, n - k); ++i)
    c = std::round(c * static_cast<double>(n - i + 1) / static_cast<double>(i));
  return c;
}

}  // namespace birkhoff::lab
