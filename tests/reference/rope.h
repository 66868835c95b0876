// Rotary embedding by its formula, with the frequencies of models.md A.2 and D.4 written out.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

namespace birkhoff::reference {

struct Rope {
  int dim;
  double theta;
  double linear = 1;                                             // positions are divided by this
  double yarn = 1, original = 0, beta_fast = 32, beta_slow = 1;  // yarn > 1: YaRN factor
  double magnitude = 1;

  double frequency(int pair) const {
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
  // Channels of pair i.
  int first(int i, bool interleaved) const { return interleaved ? 2 * i : i; }
  int second(int i, bool interleaved) const { return interleaved ? 2 * i + 1 : i + dim / 2; }

  template <class S>
  std::vector<S> rotate(const std::vector<S>& x, double position, bool interleaved) const {
    std::vector<S> y(x.size());
    for (int i = 0; i < dim / 2; ++i) {
      const double angle = position * frequency(i);
      const size_t a = static_cast<size_t>(first(i, interleaved)), b = static_cast<size_t>(second(i, interleaved));
      y[a] = magnitude * (x[a] * std::cos(angle) - x[b] * std::sin(angle));
      y[b] = magnitude * (x[b] * std::cos(angle) + x[a] * std::sin(angle));
    }
    return y;
  }
};

}  // namespace birkhoff::reference
