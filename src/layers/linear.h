// A weight matrix [out, in] and what products read of it: packed copies, or the tensors of the model file themselves.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "layers/parameter.h"
#include "ops/gemm/gemm_pack.h"
#include "ops/gemm/low_rank.h"
#include "ops/gemm/operand_pages.h"

namespace birkhoff::layers {

// A tensor of a model file that a Linear holds, alone or above others.
struct Part {
  std::string_view name;  // of the module under the layer's prefix: the tensor is name + ".weight"
  int64_t rows;
  Role role = Role::matrix;
};

// A low-rank addition (LoRA) to rows first_row .. first_row + b.rows of a Linear, which may hold several tensors of a
// file: x -> scale (x a^T) b^T. It stays beside w: training moves a and b alone. In a gradient, a and b are its
// gradients and `products` stays empty.
struct Adapter {
  int64_t first_row = 0;
  Mat a, b;  // fp32 [r, in], [rows, r]
  ops::LowRank products;
  std::vector<std::vector<ops::LowRank>> row_blocks;  // of Linear::row_blocks, forward only
};

// `w` is the fp32 master (or, in a gradient, the fp32 gradient; then the packed copies stay empty). `forward` packs w^T
// (y = x w^T) and `backward` packs w (dx = dy w), in the compute type. A model that only runs forward leaves `backward`
// empty; when it reads its weights from the mapped file, `w` is a shape without memory and `forward` a view of the
// file, in whatever number format.
struct Linear {
  // Rows i * step + first .. + rows of w, for every i, that multiply on their own: y = x w_i^T (transposed) or y = x
  // w_i.
  struct RowBlocks {
    int64_t first = 0, rows = 0, step = 0;
    bool transposed = false;
    std::vector<ops::Packed> packed;
  };

  Mat w;
  std::vector<Part> parts;   // w from top to bottom; none where it is rows of another matrix (GroupedLinear)
  bool always_fp32 = false;  // multiplied in fp32 whatever the compute type
  bool passing = false;      // of a streamed model: there is no room for it in memory from one token to the next
  ops::Packed forward, backward;
  std::vector<RowBlocks> row_blocks;
  std::vector<Adapter> adapters;

  Linear() = default;
  Linear(std::vector<Part> tensors, int64_t in, bool fp32 = false);
  // A shape without a name.
  Linear(int64_t out, int64_t in) : w(nullptr, DType::f32, out, in) {}
  int64_t out() const { return w.rows; }
  int64_t in() const { return w.cols; }
  void take_packed(Arena& arena, DType dtype, bool with_backward);
  // Products read rows [first_row, first_row + out) of `file`, which must outlive this; values are rounded to dtype
  // where they are used.
  void read_from(const ops::StoredMatrix& file, int64_t first_row, DType dtype);
  // Products read quantised copies: of the whole, and of every row block (`blocks`, in their order; of those that are
  // not transposed the copy is), which must outlive this.
  void read_quantised(const ops::QuantMatrix& whole, std::span<const ops::QuantMatrix* const> blocks, DType dtype);
  // The products of the adapters, whose shapes are set.
  void take_adapters(Arena& arena, float scale, bool with_backward);
  // Repacks from the master, adapters too. Call after every change.
  void refresh(const Exec& exec) const;
  void refresh_adapters(const Exec& exec) const;
};

// A matrix [groups*rows, in] of a model file whose groups of rows multiply on their own.
struct GroupedLinear {
  Mat w;
  Part part;
  std::vector<Linear> of;  // rows of w

  GroupedLinear() = default;
  GroupedLinear(Part tensor, int64_t groups, int64_t in);
  // Points the groups into w.
  void share();
};

// Adds the memory that products with l read: `blocks`, of its row blocks where those are copies of their own.
void add_memory(const Linear& l, bool blocks, std::vector<ByteRange>& to);

// y [T, out] = x w^T + adapters.
void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y);
// Block i of l.row_blocks[which] times columns i * x_step .. of x, written to columns i * y_step .. of y, adapters
// included.
void linear_row_blocks(const Exec& exec, const Linear& l, size_t which, CMat x, int64_t x_step, Mat y, int64_t y_step);
// dx [T, in] assigned (skipped when dx is an empty view), grad.w += dy^T x (skipped when grad.w has no memory: w is
// frozen), the gradients of the adapters += .
void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch);

// The same for groups of consecutive rows, each with a Linear of its own (ops::grouped_gemm). All have one shape and
// adapters for the same rows.
void grouped_linear_forward(const Exec& exec, std::span<const Linear* const> l, CMat x,
                            std::span<const int32_t> offsets, Mat y);
void grouped_linear_backward(const Exec& exec, std::span<const Linear* const> l, CMat x, CMat dy,
                             std::span<const int32_t> offsets, Mat dx, std::span<Linear* const> grad, Arena& scratch);

}  // namespace birkhoff::layers
