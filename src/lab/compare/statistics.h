// Means over seeds, paired differences and their intervals. Pure functions.
#pragma once
#include <cstdint>
#include <vector>

namespace birkhoff::lab {

// P(T <= t) of Student's t with df > 0 degrees of freedom, through the regularised incomplete beta function
// (DLMF 8.17).
double student_t_cdf(double t, double df);
// The t with student_t_cdf(t, df) = p, 0 < p < 1; to about 1e-12.
double student_t_quantile(double p, double df);

struct Mean {
  int64_t n = 0;
  double mean = 0;       // NaN when n = 0
  double deviation = 0;  // of the sample (n - 1); NaN when n < 2
  double error = 0;      // standard error of the mean, deviation / sqrt(n); NaN when n < 2
};
Mean mean_of(const std::vector<double>& values);

// Mean of b[i] - a[i] with its two-sided interval from Student's t with n - 1 degrees of freedom; low and high are NaN
// when n < 2. a and b have the same length, a pair shares everything but what is compared (seed: data order, first
// weights).
struct Difference {
  Mean mean;
  double low = 0, high = 0;
};
Difference paired_difference(const std::vector<double>& a, const std::vector<double>& b, double level = 0.95);

// Ways to choose k of n, as a floating-point number (exact below 2^53).
double combinations(int64_t n, int64_t k);

}  // namespace birkhoff::lab
