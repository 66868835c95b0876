// Gradient of a real analytic function by the complex step: df/dx_i = Im f(x + i h e_i) / h, exact to rounding for h =
// 1e-50.
#pragma once
#include <complex>
#include <cstddef>
#include <vector>

namespace birkhoff::reference {

using Complex = std::complex<double>;

std::vector<Complex> lift(const std::vector<double>& x);

// f: vector of Complex -> Complex
template <class F>
std::vector<double> complex_step(const std::vector<double>& x, F&& f) {
  constexpr double kStep = 1e-50;
  std::vector<Complex> z = lift(x);
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    z[i] = Complex(x[i], kStep);
    gradient[i] = f(z).imag() / kStep;
    z[i] = x[i];
  }
  return gradient;
}

template <class S>
S dot(const std::vector<double>& a, const std::vector<S>& b);

}  // namespace birkhoff::reference
