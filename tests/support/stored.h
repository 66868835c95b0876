// Random tensors in the number formats of model files, at any byte alignment, with their values.
#pragma once
#include <gtest/gtest.h>

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
  StoredCase(const StoredFormat& f, int64_t rows, int64_t cols, uint64_t seed, size_t misalignment = 0) {
    tensor_.rows = rows;
    tensor_.cols = cols;
    tensor_.type = f.type;
    tensor_.scale_type = f.scale;
    tensor_.block_rows = f.block_rows;
    tensor_.block_cols = f.block_cols;
    const Rng rng(seed);
    data_.resize(static_cast<size_t>(rows * tensor_.row_bytes()) + 64 + misalignment);
    uint8_t* data = align(data_) + misalignment;
    for (int64_t i = 0; i < rows * tensor_.row_bytes(); ++i)
      data[i] = static_cast<uint8_t>(rng.bits(static_cast<uint64_t>(i)));
    tensor_.data = data;
    const int bytes = ops::stored_format(f.type).block_bytes;
    for (int64_t i = 0; f.type != ops::StoredType::fp4 && i < rows * cols; ++i)
      tame(data + i * bytes, bytes, f.type, rng.normal(static_cast<uint64_t>(i)));
    const int64_t down = (rows + f.block_rows - 1) / f.block_rows, across = (cols + f.block_cols - 1) / f.block_cols;
    scale_.resize(static_cast<size_t>(down * across * 4) + 64 + misalignment);
    uint8_t* scale = align(scale_) + misalignment;
    for (int64_t i = 0; i < down * across; ++i) {
      const float s = static_cast<float>(std::exp2(rng.uniform(static_cast<uint64_t>(i)) * 4 - 2));
      if (f.scale == ops::ScaleType::f32)
        std::memcpy(scale + 4 * i, &s, 4);
      else
        scale[i] = static_cast<uint8_t>(123 + rng.bits(static_cast<uint64_t>(i)) % 7);
    }
    tensor_.scale = scale;
  }
  const ops::StoredTensor& tensor() const { return tensor_; }
  // Element in fp32: the code's value times its factor, rounded once.
  float at(int64_t r, int64_t c) const {
    const ops::StoredTensor& t = tensor_;
    const uint8_t* p = t.row(r);
    double v = 0, s = 1;
    switch (t.type) {
      case ops::StoredType::f64:
        v = static_cast<float>(read<double>(p + 8 * c));
        break;
      case ops::StoredType::f32:
        v = static_cast<double>(read<float>(p + 4 * c));
        break;
      case ops::StoredType::f16:
        v = reference::f16(read<uint16_t>(p + 2 * c));
        break;
      case ops::StoredType::bf16:
        v = reference::bf16_value(read<uint16_t>(p + 2 * c));
        break;
      case ops::StoredType::f8_e4m3:
        v = reference::f8_e4m3(p[c]);
        break;
      case ops::StoredType::f8_e5m2:
        v = reference::f8_e5m2(p[c]);
        break;
      case ops::StoredType::i32:
        v = read<int32_t>(p + 4 * c);
        break;
      case ops::StoredType::i64:
        v = static_cast<double>(read<int64_t>(p + 8 * c));
        break;
      case ops::StoredType::fp4:
        v = reference::f4_e2m1(c % 2 ? p[c / 2] >> 4 : p[c / 2] & 15);
        break;
      default:
        ADD_FAILURE() << ops::stored_format(t.type).name << " has no reference here";
    }
    const int64_t at = r / t.block_rows * ((t.cols + t.block_cols - 1) / t.block_cols) + c / t.block_cols;
    if (t.scale_type == ops::ScaleType::f32) s = static_cast<double>(read<float>(t.scale + 4 * at));
    if (t.scale_type == ops::ScaleType::f8_e8m0) s = reference::f8_e8m0(t.scale[at]);
    return static_cast<float>(v * s);
  }

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
