// Named tensors of one scalar type: the parameters and inputs of a specification, and its gradient by complex steps.
#pragma once
#include <cmath>
#include <complex>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/rng.h"
#include "reference/complex_step.h"

namespace birkhoff::reference {

template <class S>
using Tensors = std::map<std::string, std::vector<S>>;

inline Tensors<Complex> lift(const Tensors<double>& t) {
  Tensors<Complex> z;
  for (const auto& [name, v] : t) z[name] = lift(v);
  return z;
}

inline double real_part(double x) { return x; }
inline double real_part(Complex x) { return x.real(); }

// d loss / d every element of every tensor; of tensors with more than `most` elements only of that many, drawn at
// random, the others are NaN. loss: Tensors<Complex> -> Complex.
template <class F>
Tensors<double> complex_gradient(const Tensors<double>& at, F&& loss, size_t most = SIZE_MAX) {
  constexpr double kStep = 1e-50;
  Tensors<Complex> z = lift(at);
  Tensors<double> gradient;
  for (auto& [name, v] : z) {
    std::vector<double>& g = gradient[name];
    g.assign(v.size(), std::nan(""));
    const bool all = v.size() <= most;
    for (size_t k = 0; k < (all ? v.size() : most); ++k) {
      const size_t i = all ? k : Rng(7, v.size()).bits(k) % v.size();
      v[i] += Complex(0, kStep);
      g[i] = loss(z).imag() / kStep;
      v[i] = v[i].real();
    }
  }
  return gradient;
}

}  // namespace birkhoff::reference
