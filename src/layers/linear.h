// A weight matrix [out, in] and what products read of it: packed copies, or the tensors of the model file themselves.
#pragma once
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm.h"

namespace birkhoff::layers {

// `w` is the fp32 master (or, in a gradient, the fp32 gradient; then the packed copies stay empty). `forward` packs w^T (y = x w^T) and
// `backward` packs w (dx = dy w), in the compute type. A model that only runs forward leaves `backward` empty; when it reads its
// weights from the mapped file, `w` is a shape without memory and `forward` a view of the file, in whatever number format.
struct Linear {
  // Rows i * step + first .. + rows of w, for every i, that multiply on their own: y = x w_i^T (transposed) or y = x w_i.
  struct RowBlocks {
    int64_t first = 0, rows = 0, step = 0;
    bool transposed = false;
    std::vector<ops::Packed> packed;
  };

  Mat w;
  ops::Packed forward, backward;
  std::vector<RowBlocks> row_blocks;

  Linear() = default;
  Linear(int64_t out, int64_t in) : w(nullptr, DType::f32, out, in) {}
  int64_t out() const { return w.rows; }
  int64_t in() const { return w.cols; }
  void take_packed(Arena& arena, DType dtype, bool with_backward);
  // Products read rows [first_row, first_row + out) of `file`, which must outlive this; values are rounded to dtype where they are used.
  void read_from(const ops::StoredMatrix& file, int64_t first_row, DType dtype);
  // Repacks from the master. Call after every change of w.
  void refresh(const Exec& exec) const;
};

// y [T, out] = x w^T.
void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y);
// Block i of l.row_blocks[which] times columns i * x_step .. of x, written to columns i * y_step .. of y.
void linear_row_blocks(const Exec& exec, const Linear& l, size_t which, CMat x, int64_t x_step, Mat y, int64_t y_step);
// dx [T, in] = dy w (assigned; skipped when dx is an empty view), grad.w += dy^T x.
void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch);

}  // namespace birkhoff::layers
