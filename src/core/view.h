// Row-major matrix views with the element type known at run time. They own nothing. CMat is read-only, Mat writable.
// Vectors are matrices of one row. `stride` counts elements between the starts of two rows (>= cols).
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/bf16.h"
#include "core/error.h"

namespace birkhoff {

template <class Void>
struct BasicMat {
  template <class T>
  using Ptr = std::conditional_t<std::is_const_v<Void>, const T*, T*>;

  Void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0, stride = 0;

  BasicMat() = default;
  BasicMat(Void* d, DType t, int64_t r, int64_t c, int64_t s = -1)
      : data(d), dtype(t), rows(r), cols(c), stride(s < 0 ? c : s) {}
  // A writable view converts to a read-only one.
  template <class V, class = std::enable_if_t<std::is_const_v<Void> && !std::is_const_v<V>>>
  BasicMat(const BasicMat<V>& m) : data(m.data), dtype(m.dtype), rows(m.rows), cols(m.cols), stride(m.stride) {}

  int64_t size() const { return rows * cols; }
  bool empty() const { return size() == 0; }
  bool contiguous() const { return stride == cols || rows <= 1; }
  int64_t bytes() const { return size() * dtype_bytes(dtype); }

  // Pointer to row r as T; the element type must match.
  template <class T>
  Ptr<T> row(int64_t r = 0) const {
    BK_CHECK(dtype == dtype_of<T>);
    return static_cast<Ptr<T>>(data) + r * stride;
  }
  Ptr<float> f32(int64_t r = 0) const { return row<float>(r); }
  Ptr<bf16> b16(int64_t r = 0) const { return row<bf16>(r); }

  BasicMat row_block(int64_t first, int64_t count) const {
    BK_CHECK(first >= 0 && count >= 0 && first + count <= rows);
    return {offset(first * stride), dtype, count, cols, stride};
  }
  BasicMat col_block(int64_t first, int64_t count) const {
    BK_CHECK(first >= 0 && count >= 0 && first + count <= cols);
    return {offset(first), dtype, rows, count, stride};
  }
  // The same contiguous elements under another shape.
  BasicMat reshaped(int64_t r, int64_t c) const {
    BK_CHECK(contiguous());
    BK_CHECK_EQ(r * c, size());
    return {data, dtype, r, c};
  }

 private:
  Void* offset(int64_t elements) const {
    using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
    if (!data) return nullptr;  // views without memory describe shapes
    return static_cast<Byte*>(data) + elements * dtype_bytes(dtype);
  }
};

using Mat = BasicMat<void>;
using CMat = BasicMat<const void>;

// Row-major matrix of row numbers (-1: none), e.g. the keys a query sees. Contiguous; it owns nothing.
template <class Int>
struct BasicIndexMat {
  Int* data = nullptr;
  int64_t rows = 0, cols = 0;

  BasicIndexMat() = default;
  BasicIndexMat(Int* d, int64_t r, int64_t c) : data(d), rows(r), cols(c) {}
  template <class V, class = std::enable_if_t<std::is_const_v<Int> && !std::is_const_v<V>>>
  BasicIndexMat(const BasicIndexMat<V>& m) : data(m.data), rows(m.rows), cols(m.cols) {}
  Int* row(int64_t r) const { return data + r * cols; }
};
using IndexMat = BasicIndexMat<int32_t>;
using CIndexMat = BasicIndexMat<const int32_t>;

inline void check_shape(const CMat& m, int64_t rows, int64_t cols) {
  BK_CHECK_EQ(m.rows, rows);
  BK_CHECK_EQ(m.cols, cols);
}

}  // namespace birkhoff
