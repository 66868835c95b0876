// Numbers as bytes store them: what every expansion of a stored format shares. Included by kernel sources alone.
#pragma once
#include <stdint.h>

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

template <class T>
inline T read(const uint8_t* p) {
  T v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline float from_bits(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

inline float f16_value(uint32_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 0) {
    const float f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  return from_bits(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13));
}
inline float half_value(uint32_t bits) {
#if defined(__AVX2__)
  return _cvtsh_ss(static_cast<uint16_t>(bits));
#else
  return f16_value(bits);
#endif
}
inline float e8m0_value(uint32_t b) {
  return b == 255 ? from_bits(0x7fc00000u) : b == 0 ? 0x1p-127f : from_bits(b << 23);
}

}  // namespace birkhoff::kernels::BK_ISA
