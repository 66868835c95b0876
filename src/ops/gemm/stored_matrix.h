// Weights that stay in the mapped model file: typed views, expanded where they are used and never as a whole.
#pragma once
#include <cstdint>
#include <vector>

#include "core/exec.h"
#include "core/view.h"
#include "kernels/gemm/stored.h"

namespace birkhoff::ops {

using kernels::ScaleType;
using kernels::stored_format;
using kernels::StoredFormat;
using kernels::StoredTensor;
using kernels::StoredType;

// A matrix [rows, cols] that is one tensor of a file, or several of equal width one above the other (q above k above v,
// gate above up), each of a type of its own, whose blocks divide its rows. A view: the file must stay mapped.
struct StoredMatrix {
  // A tensor, or `turned` its transpose (keys of latent attention in GGUF files).
  struct Part {
    StoredTensor tensor;
    bool turned = false;
    int64_t rows() const { return turned ? tensor.cols : tensor.rows; }
    int64_t cols() const { return turned ? tensor.rows : tensor.cols; }
  };
  std::vector<Part> parts;
  int64_t rows = 0, cols = 0;
  void append(const StoredTensor& tensor, bool turned = false);
  void append(const StoredMatrix& below);
  bool empty() const { return parts.empty(); }
  // The part that all of rows [row, row + count) lie in, or null; `row` becomes its row there.
  const Part* part_of(int64_t& row, int64_t count) const;
};

// The tensor that rows [row, row + count) lie in and that packing kernels can read as it is, fp32 or bf16, or null;
// `row` becomes its first row.
const StoredTensor* plain_part(const StoredMatrix& w, int64_t& row, int64_t count);

// out [rows, cols] fp32 = the block of w from (row, col) on, in fp32. On the calling thread.
void expand_block(const StoredMatrix& w, int64_t row, int64_t col, Mat out);
// out [count, cols] fp32 = rows [first, first + count) in fp32, exactly what the file says (a scaled element is one
// fp32 product). On the calling thread.
void expand_rows(const StoredMatrix& w, int64_t first, int64_t count, Mat out);
// The whole matrix into out [rows, cols] fp32.
void expand(const Exec& exec, const StoredMatrix& w, Mat out);

}  // namespace birkhoff::ops
