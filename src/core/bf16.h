// bfloat16 as storage: 16 bits, converted to fp32 for all arithmetic. Rounding is to nearest, ties to even; NaN stays
// NaN.
#pragma once
#include <cstdint>
#include <cstring>

namespace birkhoff {

struct bf16 {
  uint16_t bits = 0;
};

inline float to_float(bf16 x) {
  const uint32_t u = uint32_t{x.bits} << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float to_float(float x) { return x; }

inline bf16 to_bf16(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<uint16_t>((u >> 16) | 0x40u)};
  return bf16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

enum class DType : uint8_t { f32, bf16 };
inline constexpr int64_t dtype_bytes(DType t) { return t == DType::f32 ? 4 : 2; }
inline constexpr const char* dtype_name(DType t) { return t == DType::f32 ? "fp32" : "bf16"; }
inline constexpr DType f32_t = DType::f32;
inline constexpr DType bf16_t = DType::bf16;

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;

}  // namespace birkhoff
