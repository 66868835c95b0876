// Weights that stay in the mapped model file: typed views, expanded where they are used and never as a whole.
#pragma once
#include <cstdint>
#include <vector>

#include "core/exec.h"
#include "core/view.h"
#include "kernels/gemm/stored.h"

namespace birkhoff::ops {

using kernels::ScaleType;
using kernels::stored_bits;
using kernels::StoredTensor;
using kernels::StoredType;

// A matrix [rows, cols] that is one tensor of a file, or several of equal width one above the other (q above k above v,
// gate above up), each of a type of its own. A view: the file must stay mapped.
struct StoredMatrix {
  std::vector<StoredTensor> parts;
  int64_t rows = 0, cols = 0;
  void append(const StoredTensor& part);
  bool empty() const { return parts.empty(); }
};

// out [count, cols] fp32 = rows [first, first + count) in fp32, exactly what the file says (a scaled element is one
// fp32 product). On the calling thread.
void expand_rows(const StoredMatrix& w, int64_t first, int64_t count, Mat out);
// The whole matrix into out [rows, cols] fp32.
void expand(const Exec& exec, const StoredMatrix& w, Mat out);

struct Packed;
// Panels [col, col + cols) of the stored operand b, rows [k, k + depth) of them, in the layout of Packed with `panel`
// elements between the starts of two panels. col is a multiple of 16, k of 32. On the calling thread; takes working
// memory of the worker.
void expand_panels(const Packed& b, int64_t col, int64_t cols, int64_t k, int64_t depth, void* out, int64_t panel);

// Columns [col, col + cols) of a transposed stored operand as rows of bf16 in the file, [cols, b.k], or null where they
// are of another type, scaled or not one after another.
const bf16* bf16_rows(const Packed& b, int64_t col, int64_t cols);

}  // namespace birkhoff::ops
