// Rows of blocks of GGUF files, as tests hold them.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "ops/gemm/stored_matrix.h"
#include "support/golden.h"
#include "support/matrix.h"

namespace birkhoff::test {

// A stored matrix with its bytes, which begin at an odd address.
struct BlockRows {
  std::string name;
  std::vector<uint8_t> bytes;
  ops::StoredMatrix matrix;
  std::vector<float> values;
  int64_t cols() const { return matrix.cols; }
  int64_t rows() const { return matrix.rows; }
  const float* value(int64_t r, int64_t c) const { return values.data() + r * cols() + c; }
  void view(ops::StoredType type, int64_t rows, int64_t cols, const uint8_t* data) {
    ops::StoredTensor t;
    t.rows = rows, t.cols = cols, t.type = type;
    bytes.assign(static_cast<size_t>(rows * t.row_bytes() + 1), 0);
    std::copy(data, data + bytes.size() - 1, bytes.begin() + 1);
    t.data = bytes.data() + 1;
    matrix.append(t);
  }
};

inline std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](char c) { return static_cast<char>(std::toupper(c)); });
  return s;
}

}  // namespace birkhoff::test
