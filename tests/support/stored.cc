#include "support/stored.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace birkhoff::test {

StoredCase::StoredCase(const StoredFormat& f, int64_t rows, int64_t cols, uint64_t seed, size_t misalignment) {
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

float StoredCase::at(int64_t r, int64_t c) const {
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

}  // namespace birkhoff::test
