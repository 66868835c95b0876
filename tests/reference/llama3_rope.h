// Frequencies of Llama 3 in the three cases they were published in (models.md A.4), by wavelengths.
#pragma once
#include <cmath>

namespace birkhoff::reference {

struct Llama3Rope {
  int dim;
  double theta, factor = 8, low = 1, high = 4, original = 8192;

  double frequency(int pair) const {
    const double base = std::pow(theta, -2.0 * pair / dim), wavelength = 2 * M_PI / base;
    if (wavelength < original / high) return base;
    if (wavelength > original / low) return base / factor;
    const double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * base / factor + smooth * base;
  }
};

}  // namespace birkhoff::reference
