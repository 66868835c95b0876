// Random tensors in the number formats of model files, at any byte alignment, with their values.
#pragma once
#include <string>
#include <vector>

#include "core/rng.h"
#include "ops/gemm/stored_matrix.h"
#include "reference/stored.h"

namespace birkhoff::test {

struct StoredFormat {
  ops::StoredType type;
  ops::ScaleType scale;
  int64_t block_rows, block_cols;
  const char* name;
};
inline const std::vector<StoredFormat>& stored_formats() {
  using T = ops::StoredType;
  using S = ops::ScaleType;
  static const std::vector<StoredFormat> all = {{T::f64, S::none, 1, 1, "f64"},
                                                {T::f32, S::none, 1, 1, "f32"},
                                                {T::f16, S::none, 1, 1, "f16"},
                                                {T::bf16, S::none, 1, 1, "bf16"},
                                                {T::f8_e4m3, S::none, 1, 1, "e4m3"},
                                                {T::f8_e5m2, S::none, 1, 1, "e5m2"},
                                                {T::f8_e4m3, S::f32, 128, 128, "e4m3 with fp32 blocks"},
                                                {T::f8_e4m3, S::f8_e8m0, 128, 128, "e4m3 with e8m0 blocks"},
                                                {T::f8_e5m2, S::f32, 128, 128, "e5m2 with fp32 blocks"},
                                                {T::fp4, S::f8_e8m0, 1, 32, "fp4 with e8m0 rows"}};
  return all;
}

// Owns the bytes of a random tensor. Codes that are no finite number are left out.
class StoredCase {
 public:
  StoredCase(const StoredFormat& f, int64_t rows, int64_t cols, uint64_t seed, size_t misalignment = 0);
  const ops::StoredTensor& tensor() const { return tensor_; }
  // Element in fp32: the code's value times its factor, rounded once.
  float at(int64_t r, int64_t c) const;

 private:
  template <class T>
  static T read(const uint8_t* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static uint8_t* align(std::vector<uint8_t>& v) {
    return v.data() + (64 - reinterpret_cast<uintptr_t>(v.data()) % 64) % 64;
  }
  static void tame(uint8_t* p, int bytes, ops::StoredType type, double normal) {
    const float f = static_cast<float>(normal);
    if (bytes == 8) std::memcpy(p, &normal, 8);
    if (bytes == 4) std::memcpy(p, &f, 4);
    if (type == ops::StoredType::bf16) {
      const bf16 b = to_bf16(f);
      std::memcpy(p, &b, 2);
    }
    if (type == ops::StoredType::f16)
      p[1] = static_cast<uint8_t>((p[1] & 0x83u) | 0x30u | (p[1] & 0x0cu));  // exponents 12 to 15
    if (type == ops::StoredType::f8_e4m3 && (*p & 0x7fu) == 0x7fu) *p = 0x3c;
    if (type == ops::StoredType::f8_e5m2) *p = static_cast<uint8_t>((*p & 0x83u) | 0x30u | (*p & 0x0cu));
  }
  ops::StoredTensor tensor_;
  std::vector<uint8_t> data_, scale_;
};

}  // namespace birkhoff::test
