#include "reference/rope.h"

#include <algorithm>
#include <cmath>

#include "reference/complex_step.h"

namespace birkhoff::reference {

double Rope::frequency(int pair) const {
  const double base = std::pow(theta, -2.0 * pair / dim);
  if (yarn == 1) return base / linear;
  const auto index = [&](double turns) {
    return dim * std::log(original / (2 * M_PI * turns)) / (2 * std::log(theta));
  };
  const double low = std::max(std::floor(index(beta_fast)), 0.0);
  double high = std::min(std::ceil(index(beta_slow)), dim - 1.0);
  if (low == high) high += 0.001;
  const double ramp = std::min(1.0, std::max(0.0, (pair - low) / (high - low)));
  return base / yarn * ramp + base * (1 - ramp);
}

template <class S>
std::vector<S> Rope::rotate(const std::vector<S>& x, double position, bool interleaved) const {
  std::vector<S> y(x.size());
  for (int i = 0; i < dim / 2; ++i) {
    const double angle = position * frequency(i);
    const size_t a = static_cast<size_t>(first(i, interleaved)), b = static_cast<size_t>(second(i, interleaved));
    y[a] = magnitude * (x[a] * std::cos(angle) - x[b] * std::sin(angle));
    y[b] = magnitude * (x[b] * std::cos(angle) + x[a] * std::sin(angle));
  }
  return y;
}

#define BIRKHOFF_INSTANTIATE(S) template std::vector<S> Rope::rotate(const std::vector<S>&, double, bool) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
