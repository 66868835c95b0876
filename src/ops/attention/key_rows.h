// Rows of keys or values of one text, in their order: those of a matrix, or those that pages of a pool hold
// (ops/attention/paged_rows.h).
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/view.h"
#include "kernels/attention/attention.h"

namespace birkhoff::ops {

class PagedRows;

struct KeyRows {
  CMat first;  // the rows; with pages those of page 0
  int64_t rows = 0, cols = 0;
  DType dtype = DType::f32;
  const int32_t* pages = nullptr;      // [ceil(rows / kPageRows)] row r stands in page pages[r / kPageRows]
  int64_t page_bytes = 0;              // from a page to the next
  const PagedRows* encoded = nullptr;  // rows are of another type: numbers of `dtype` once they are read through it
  bool by_head = false;                // a page has the rows of one head after another (RowLayout::by_group)

  template <class M, class = std::enable_if_t<std::is_convertible_v<const M&, CMat>>>
  KeyRows(const M& m) : first(m), rows(first.rows), cols(first.cols), dtype(first.dtype) {}
  KeyRows(CMat page, const int32_t* page_of, int64_t bytes, int64_t count)
      : first(page), rows(count), cols(page.cols), dtype(page.dtype), pages(page_of), page_bytes(bytes) {}
  KeyRows col_block(int64_t begin, int64_t count) const {
    BK_CHECK(!encoded && begin >= 0 && count >= 0 && begin + count <= cols);
    KeyRows r = *this;
    r.first.data = first.data ? at(begin) : nullptr;
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
  // Rows from `row` on of the head of `width` columns that begins at `col`, as the kernels take them.
  kernels::AttentionRows from(int64_t row, int64_t col, int64_t width) const {
    BK_CHECK(!encoded && row >= 0 && row <= rows && col >= 0 && width > 0 && col + width <= cols);
    const int64_t stride = by_head ? width : first.stride;
    if (pages) return {at(col), stride, pages, page_bytes, row};
    return {at(row * stride + col), stride};
  }

 private:
  // Element `index` of the first row, or of the first page's heads.
  const std::byte* at(int64_t index) const {
    return static_cast<const std::byte*>(first.data) + index * (by_head ? kernels::kPageRows : 1) * dtype_bytes(dtype);
  }
};

inline void check_rows(const KeyRows& m, int64_t rows, int64_t cols) {
  BK_CHECK_EQ(m.rows, rows);
  BK_CHECK_EQ(m.cols, cols);
}

}  // namespace birkhoff::ops
