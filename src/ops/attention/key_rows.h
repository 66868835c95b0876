// Rows of keys or values of one text, in their order: those of a matrix, or those that pages of a pool hold
// (ops/attention/paged_rows.h).
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/view.h"
#include "kernels/attention/attention.h"

namespace birkhoff::ops {

struct KeyRows {
  CMat first;  // the rows; with pages those of page 0
  int64_t rows = 0, cols = 0;
  DType dtype = DType::f32;
  const int32_t* pages = nullptr;  // [ceil(rows / kPageRows)] row r stands in page pages[r / kPageRows]
  int64_t page_bytes = 0;          // from a page to the next

  template <class M, class = std::enable_if_t<std::is_convertible_v<const M&, CMat>>>
  KeyRows(const M& m) : first(m), rows(first.rows), cols(first.cols), dtype(first.dtype) {}
  KeyRows(CMat page, const int32_t* page_of, int64_t bytes, int64_t count)
      : first(page), rows(count), cols(page.cols), dtype(page.dtype), pages(page_of), page_bytes(bytes) {}
  KeyRows col_block(int64_t begin, int64_t count) const {
    KeyRows r = *this;
    r.first = first.col_block(begin, count);
    r.cols = count;
    return r;
  }
  KeyRows first_rows(int64_t count) const {
    BK_CHECK_LE(count, rows);
    KeyRows r = *this;
    if (!pages) r.first = first.row_block(0, count);
    r.rows = count;
    return r;
  }
  // Rows from `row` on, of columns from `col` on, as the kernels take them.
  kernels::AttentionRows from(int64_t row, int64_t col) const {
    BK_CHECK(row >= 0 && row <= rows);
    const CMat columns = first.col_block(col, cols - col);
    if (pages) return {columns.data, columns.stride, pages, page_bytes, row};
    return {columns.row_block(row, rows - row).data, columns.stride};
  }
};

inline void check_rows(const KeyRows& m, int64_t rows, int64_t cols) {
  BK_CHECK_EQ(m.rows, rows);
  BK_CHECK_EQ(m.cols, cols);
}

}  // namespace birkhoff::ops
