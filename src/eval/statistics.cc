#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::eval {
namespace {

constexpr double kNormal95 = 1.959963984540054;  // 97.5 % of the normal distribution lie below
constexpr size_t kResamples = 2000;

bool is_binary(std::span<const double> scores) {
  return std::all_of(scores.begin(), scores.end(), [](double s) { return s == 0 || s == 1; });
}

// P(as few or fewer, or as many or more) of m fair coins, when `few` of them fell to the rarer side.
double two_sided_binomial(int64_t few, int64_t m) {
  const auto log_factorial = [](int64_t k) { return std::lgamma(static_cast<double>(k) + 1); };
  double p = 0;
  for (int64_t i = 0; i <= few; ++i)
    p += std::exp(log_factorial(m) - log_factorial(i) - log_factorial(m - i) -
                  static_cast<double>(m) * std::numbers::ln2);
  return std::min(1.0, 2 * p);
}

void binary_interval(PairedDifference& d) {
  if (d.n == 0) return;
  const double n = static_cast<double>(d.n) + 2, a = static_cast<double>(d.a_alone) + 0.5,
               b = static_cast<double>(d.b_alone) + 0.5;
  const double middle = (b - a) / n, reach = kNormal95 * std::sqrt(a + b - (b - a) * (b - a) / n) / n;
  d.low = std::max(-1.0, middle - reach);
  d.high = std::min(1.0, middle + reach);
}

std::vector<double> resampled_means(std::span<const double> values, uint64_t seed) {
  const uint64_t n = values.size();
  std::vector<double> means(kResamples);
  for (size_t r = 0; r < kResamples; ++r) {
    const Rng rng(seed, r);
    double sum = 0;
    for (uint64_t i = 0; i < n; ++i) sum += values[(rng.bits(i) >> 32) * n >> 32];
    means[r] = sum / static_cast<double>(n);
  }
  std::sort(means.begin(), means.end());
  return means;
}

// Of sorted values, between neighbours in proportion.
double quantile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const auto i = static_cast<size_t>(at);
  const double next = sorted[std::min(i + 1, sorted.size() - 1)];
  return sorted[i] + (at - static_cast<double>(i)) * (next - sorted[i]);
}

void bootstrap_interval(PairedDifference& d, std::span<const double> differences, uint64_t seed) {
  const std::vector<double> means = resampled_means(differences, seed);
  // Resamples spread as if the variance were over n, not n - 1.
  const double n = static_cast<double>(d.n), wider = std::sqrt(n / (n - 1));
  d.low = d.mean + wider * (quantile(means, 0.025) - d.mean);
  d.high = d.mean + wider * (quantile(means, 0.975) - d.mean);
}

}  // namespace

MeanScore mean_score(std::span<const double> scores) {
  MeanScore m;
  m.n = static_cast<int64_t>(scores.size());
  const auto n = static_cast<double>(m.n);
  double sum = 0, squares = 0;
  for (const double s : scores) sum += s;
  m.mean = sum / n;
  for (const double s : scores) squares += (s - m.mean) * (s - m.mean);
  if (m.n > 1) m.stderr_ = std::sqrt(squares / (n - 1) / n);
  return m;
}

MeanScore pooled_score(std::span<const MeanScore> tasks) {
  MeanScore group;
  double sum = 0, squares = 0;
  bool known = true;
  for (const MeanScore& t : tasks) {
    const auto n = static_cast<double>(t.n);
    group.n += t.n;
    sum += n * t.mean;
    known = known && t.stderr_;
    squares += (n - 1) * n * t.stderr_.value_or(0) * t.stderr_.value_or(0);
  }
  const auto n = static_cast<double>(group.n);
  group.mean = sum / n;
  if (known) group.stderr_ = std::sqrt(squares / (n - static_cast<double>(tasks.size())) / n);
  return group;
}

PairedDifference paired_difference(std::span<const double> a, std::span<const double> b, uint64_t seed) {
  BK_CHECK_EQ(a.size(), b.size());
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(b[i] - a[i]);
  const MeanScore m = mean_score(differences);
  PairedDifference d{m.mean, m.stderr_.value_or(NAN), NAN, NAN, m.n, 0, 0, {}};
  if (is_binary(a) && is_binary(b)) {
    d.a_alone = std::count(differences.begin(), differences.end(), -1.0);
    d.b_alone = std::count(differences.begin(), differences.end(), 1.0);
    d.mcnemar = two_sided_binomial(std::min(d.a_alone, d.b_alone), d.a_alone + d.b_alone);
    binary_interval(d);
  } else if (d.n > 1) {
    bootstrap_interval(d, differences, seed);
  }
  return d;
}

}  // namespace birkhoff::eval
