#include "layers/linear.h"

#include <numeric>
#include <utility>

#include "core/error.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/weight_grad.h"

namespace birkhoff::layers {
namespace {

template <class T, class Get, class L>
std::vector<T> collect(std::span<L* const> linears, Get get) {
  std::vector<T> v;
  v.reserve(linears.size());
  for (L* l : linears) v.push_back(get(*l));
  return v;
}

// Every group's adapter number i; they add to the same columns of y.
std::vector<ops::LowRank> adapter_products(std::span<const Linear* const> l, size_t i) {
  return collect<ops::LowRank>(l, [&](const Linear& one) {
    BK_CHECK_LT(i, one.adapters.size());
    return one.adapters[i].products;
  });
}

Mat adapted_columns(const Adapter& a, Mat y) { return y.col_block(a.first_row, a.b.rows); }
CMat adapted_columns(const Adapter& a, CMat y) { return y.col_block(a.first_row, a.b.rows); }

void add_adapters(const Exec& exec, std::span<const Linear* const> l, CMat x, std::span<const int32_t> offsets, Mat y) {
  if (l.empty()) return;
  for (size_t i = 0; i < l[0]->adapters.size(); ++i)
    ops::low_rank_forward(exec, x, offsets, adapter_products(l, i), adapted_columns(l[0]->adapters[i], y));
}

void adapters_backward(const Exec& exec, std::span<const Linear* const> l, CMat x, CMat dy,
                       std::span<const int32_t> offsets, Mat dx, std::span<Linear* const> grad, Arena& scratch) {
  if (l.empty()) return;
  BK_CHECK_EQ(l[0]->adapters.size(), grad[0]->adapters.size());
  for (size_t i = 0; i < l[0]->adapters.size(); ++i) {
    const auto d_a = collect<Mat>(grad, [&](Linear& g) { return g.adapters[i].a; });
    const auto d_b = collect<Mat>(grad, [&](Linear& g) { return g.adapters[i].b; });
    ops::low_rank_backward(exec, x, adapted_columns(l[0]->adapters[i], dy), offsets, adapter_products(l, i),
                           {dx, d_a, d_b}, scratch);
  }
}

// The offsets of one group of all rows.
struct OneGroup {
  int32_t offsets[2];
  explicit OneGroup(int64_t rows) : offsets{0, static_cast<int32_t>(rows)} {}
};

}  // namespace

Linear::Linear(std::vector<Part> tensors, int64_t in, bool fp32) : parts(std::move(tensors)), always_fp32(fp32) {
  int64_t rows = 0;
  for (const Part& p : parts) rows += p.rows;
  w = Mat(nullptr, DType::f32, rows, in);
}

GroupedLinear::GroupedLinear(Part tensor, int64_t groups, int64_t in)
    : w(nullptr, DType::f32, tensor.rows, in), part(tensor) {
  BK_CHECK_EQ(tensor.rows % groups, 0);
  of.assign(static_cast<size_t>(groups), Linear(tensor.rows / groups, in));
  if (groups == 1) of[0].parts = {tensor};
}

void GroupedLinear::share() {
  for (size_t g = 0; g < of.size(); ++g) of[g].w = w.row_block(static_cast<int64_t>(g) * of[g].out(), of[g].out());
}

void Linear::take_adapters(Arena& arena, float scale, bool with_backward) {
  for (Adapter& a : adapters) {
    a.products = ops::LowRank::take(arena, a.a.cols, a.a.rows, a.b.rows, with_backward);
    a.products.scale = scale;
    a.row_blocks.clear();
    for (const RowBlocks& b : row_blocks) {
      BK_CHECK(a.first_row == 0 && a.b.rows == w.rows);  // row blocks belong to a Linear of one tensor
      std::vector<ops::LowRank>& packed = a.row_blocks.emplace_back();
      for (size_t i = 0; i < b.packed.size(); ++i) {
        packed.push_back(b.transposed ? ops::LowRank::take(arena, a.a.cols, a.a.rows, b.rows, false)
                                      : ops::LowRank::take(arena, b.rows, a.a.rows, a.a.cols, false));
        packed.back().scale = scale;
      }
    }
  }
}

void Linear::refresh_adapters(const Exec& exec) const {
  for (const Adapter& a : adapters) {
    a.products.refresh(exec, a.a, a.b);
    for (size_t which = 0; which < a.row_blocks.size(); ++which) {
      const RowBlocks& b = row_blocks[which];
      for (size_t i = 0; i < a.row_blocks[which].size(); ++i) {
        const ops::LowRank& l = a.row_blocks[which][i];
        const CMat rows = a.b.row_block(static_cast<int64_t>(i) * b.step + b.first, b.rows);
        if (b.transposed) {
          l.refresh(exec, a.a, rows);
        } else {  // y += scale (x B_i) A
          ops::pack(exec, rows, l.a_t);
          ops::pack(exec, a.a, l.b_t);
        }
      }
    }
  }
}

void Linear::take_packed(Arena& arena, DType dtype, bool with_backward) {
  forward = ops::Packed::take(arena, dtype, w.cols, w.rows);
  if (with_backward) backward = ops::Packed::take(arena, dtype, w.rows, w.cols);
  for (RowBlocks& b : row_blocks) {
    b.packed.clear();
    for (int64_t i = 0; i < w.rows / b.step; ++i)
      b.packed.push_back(b.transposed ? ops::Packed::take(arena, dtype, w.cols, b.rows)
                                      : ops::Packed::take(arena, dtype, b.rows, w.cols));
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
      b.packed.push_back(b.transposed ? ops::Packed::transposed_rows(file, first, b.rows, dtype)
                                      : ops::Packed::rows(file, first, b.rows, dtype));
    }
  }
}

void Linear::read_quantised(const ops::QuantMatrix& whole, std::span<const ops::QuantMatrix* const> blocks,
                            DType dtype) {
  BK_CHECK(whole.rows == out() && whole.cols == in());
  w.data = nullptr;
  forward = ops::Packed::of(whole, dtype);
  size_t next = 0;
  for (RowBlocks& b : row_blocks) {
    b.packed.clear();
    for (int64_t i = 0; i < out() / b.step; ++i) b.packed.push_back(ops::Packed::of(*blocks[next++], dtype));
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
  refresh_adapters(exec);
}

void add_memory(const Linear& l, bool blocks, std::vector<ByteRange>& to) {
  if (!blocks || l.row_blocks.empty() || l.forward.stored) return ops::add_memory(l.forward, to);
  for (const Linear::RowBlocks& b : l.row_blocks)
    for (const ops::Packed& one : b.packed) ops::add_memory(one, to);
}

void linear_forward(const Exec& exec, const Linear& l, CMat x, Mat y) {
  ops::gemm(exec, x, l.forward, y);
  if (l.adapters.empty()) return;
  const Linear* one = &l;
  add_adapters(exec, {&one, 1}, x, OneGroup(x.rows).offsets, y);
}

void linear_row_blocks(const Exec& exec, const Linear& l, size_t which, CMat x, int64_t x_step, Mat y, int64_t y_step) {
  const std::vector<ops::Packed>& blocks = l.row_blocks[which].packed;
  const auto count = static_cast<int64_t>(blocks.size());
  BK_CHECK(count > 0);
  const int64_t k = blocks[0].k, n = blocks[0].n;
  if (x.rows == 1) {  // a decoding step: the blocks are the groups of one product
    BK_CHECK(count * x_step <= x.cols && count * y_step <= y.cols);
    std::vector<int32_t> offsets(blocks.size() + 1);
    std::iota(offsets.begin(), offsets.end(), 0);
    const CMat rows(x.data, x.dtype, count, k, x_step);
    const Mat out(y.data, y.dtype, count, n, y_step);
    ops::grouped_gemm(exec, rows, offsets, blocks, out);
    for (const Adapter& a : l.adapters) ops::low_rank_forward(exec, rows, offsets, a.row_blocks[which], out);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const CMat in = x.col_block(i * x_step, k);
    const Mat out = y.col_block(i * y_step, n);
    ops::gemm(exec, in, blocks[static_cast<size_t>(i)], out);
    for (const Adapter& a : l.adapters)
      ops::low_rank_forward(exec, in, OneGroup(x.rows).offsets, {&a.row_blocks[which][static_cast<size_t>(i)], 1}, out);
  }
}

void linear_backward(const Exec& exec, const Linear& l, CMat x, CMat dy, Mat dx, Linear& grad, Arena& scratch) {
  if (dx.data) ops::gemm(exec, dy, l.backward, dx);
  if (grad.w.data) ops::gemm_weight_grad(exec, dy, x, grad.w, scratch);
  if (l.adapters.empty()) return;
  const Linear* one = &l;
  Linear* g = &grad;
  adapters_backward(exec, {&one, 1}, x, dy, OneGroup(x.rows).offsets, dx, {&g, 1}, scratch);
}

void grouped_linear_forward(const Exec& exec, std::span<const Linear* const> l, CMat x,
                            std::span<const int32_t> offsets, Mat y) {
  ops::grouped_gemm(exec, x, offsets, collect<ops::Packed>(l, [](const Linear& one) { return one.forward; }), y);
  add_adapters(exec, l, x, offsets, y);
}

void grouped_linear_backward(const Exec& exec, std::span<const Linear* const> l, CMat x, CMat dy,
                             std::span<const int32_t> offsets, Mat dx, std::span<Linear* const> grad, Arena& scratch) {
  BK_CHECK_EQ(l.size(), grad.size());
  ops::grouped_weight_grad(exec, dy, x, offsets, collect<Mat>(grad, [](const Linear& g) { return g.w; }), scratch);
  if (dx.data)
    ops::grouped_gemm(exec, dy, offsets, collect<ops::Packed>(l, [](const Linear& one) { return one.backward; }), dx);
  adapters_backward(exec, l, x, dy, offsets, dx, grad, scratch);
}

}  // namespace birkhoff::layers
