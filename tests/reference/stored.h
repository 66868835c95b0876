// Number formats of model files, element by element in double, from their definitions (models.md E.5, G.10; IEEE 754).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace birkhoff::reference {

// A float of `exponent_bits` and `mantissa_bits` below a sign; ieee: the largest exponent means infinity or NaN.
inline double small_float(uint32_t code, int exponent_bits, int mantissa_bits, bool ieee) {
  const int mantissa = static_cast<int>(code & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>(code >> mantissa_bits & ((1u << exponent_bits) - 1));
  const double sign = code >> (exponent_bits + mantissa_bits) & 1u ? -1 : 1;
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  if (ieee && exponent == top)
    return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
}
inline double f16(uint32_t code) { return small_float(code, 5, 10, true); }
inline double bf16_value(uint32_t code) { return small_float(code, 8, 7, true); }
inline double f8_e5m2(uint32_t code) { return small_float(code, 5, 2, true); }
inline double f8_e4m3(uint32_t code) {
  return (code & 0x7fu) == 0x7fu ? std::numeric_limits<double>::quiet_NaN() : small_float(code, 4, 3, false);
}
inline double f4_e2m1(uint32_t code) { return small_float(code, 2, 1, false); }
inline double f8_e8m0(uint32_t code) {
  return code == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, static_cast<int>(code) - 127);
}

}  // namespace birkhoff::reference
