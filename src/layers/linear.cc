#include "layers/linear.h"

#include <numeric>

#include "core/error.h"

namespace birkhoff::layers {

void Linear::take_packed(Arena& arena, DType dtype, bool with_backward) {
  forward = ops::Packed::take(arena, dtype, w.cols, w.rows);
  if (with_backward) backward = ops::Packed::take(arena, dtype, w.rows, w.cols);
  for (RowBlocks& b : row_blocks) {
    b.packed.clear();
    for (int64_t i = 0; i < w.rows / b.step; ++i)
      b.packed.push_back(b.transposed ? ops::Packed::take(arena, dtype, w.cols, b.rows) : ops::Packed::take(arena, dtype, b.rows, w.cols));
  }
}

void Linear::read_from(const ops::StoredMatrix& file, int64_t first_row, DType dtype) {
  BK_CHECK_LE(first_row + out(), file.rows);
  BK_CHECK_EQ(file.cols, in());
  w.data = nullptr;
  forward = ops::Packed::transposed_rows(file, first_row, out(), dtype);
  for (RowBlocks& b : row_blocks) {
    b.packed.clear();
    for (int64_t i = 0; i < out() / b.step; ++i) {
      const int64_t first = first_row + i * b.step + b.first;
      b.packed.push_back(b.transposed ? ops::Packed::transposed_rows(file, first, b.rows, dtype) : ops::Packed::rows(file, first, b.rows, dtype));
    }
  }
}

void Linear::refresh(const Exec& exec) const {
  ops::pack_transposed(exec, w, forward);
  if (!backward.empty()) ops::pack(exec, w, backward);
  for (const RowBlocks& b : row_blocks)
    for (size_t i = 0; i < b.packed.size(); ++i) {
      const CMat rows = w.row_block(static_cast<int64_t>(i) * b.step + b.first, b.rows);
      b.transposed ? ops::pack_transposed(exec, rows, b.packed[i]) : ops::pack(exec, rows, b.packed[i]);
    }
}

void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y) { ops::gemm(exec, x, l.forward, y); }

void linear_row_blocks(const Exec& exec, const Linear& l, size_t which, CMat x, int64_t x_step, Mat y, int64_t y_step) {
  const std::vector<ops::Packed>& blocks = l.row_blocks[which].packed;
  const auto count = static_cast<int64_t>(blocks.size());
  BK_CHECK(count > 0);
  const int64_t k = blocks[0].k, n = blocks[0].n;
  if (x.rows == 1) {  // a decoding step: the blocks are the groups of one product
    BK_CHECK(count * x_step <= x.cols && count * y_step <= y.cols);
    std::vector<int32_t> offsets(blocks.size() + 1);
    std::iota(offsets.begin(), offsets.end(), 0);
    ops::grouped_gemm(exec, CMat(x.data, x.dtype, count, k, x_step), offsets, blocks, Mat(y.data, y.dtype, count, n, y_step));
    return;
  }
  for (int64_t i = 0; i < count; ++i) ops::gemm(exec, x.col_block(i * x_step, k), blocks[static_cast<size_t>(i)], y.col_block(i * y_step, n));
}

void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch) {
  if (dx.data) ops::gemm(exec, dy, l.backward, dx);
  ops::gemm_weight_grad(exec, dy, x, grad.w, scratch);
}

}  // namespace birkhoff::layers
