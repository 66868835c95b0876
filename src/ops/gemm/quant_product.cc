#include "ops/gemm/quant_product.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/gemm/quant.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::kPanel;
using kernels::kQuantBlock;
using kernels::QuantProduct;
using kernels::QuantRows;

QuantRows row_of(const QuantRows& all, int64_t row, int64_t k) {
  const int64_t blocks = k / kQuantBlock;
  return {all.codes + row * k, all.scale + row * blocks, all.sum + row * blocks, all.start + row * blocks};
}

QuantRows quantise_activations(const Exec& exec, CMat a, int64_t rows, WorkerScratch& scratch) {
  const int64_t k = a.cols, blocks = k / kQuantBlock;
  QuantRows q;
  q.codes = scratch.take<int8_t>(rows * k);
  q.scale = scratch.take<float>(rows * blocks);
  q.sum = scratch.take<float>(rows * blocks);
  q.start = scratch.take<int32_t>(rows * blocks);
  constexpr int64_t kTaskElements = 1 << 15;
  const int64_t per = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, k));
  const auto& kernel = kernels::quant_kernels();
  const auto run = [&](int64_t task) {
    for (int64_t r = task * per; r < std::min(rows, (task + 1) * per); ++r)
      a.dtype == DType::f32 ? kernel.activations_f32(a.f32(r), k, row_of(q, r, k))
                            : kernel.activations_bf16(a.b16(r), k, row_of(q, r, k));
  };
  const int64_t tasks = div_up(rows, per);
  if (tasks == 1)
    run(0);
  else
    exec.parallel_for(tasks, run);
  return q;
}

// Rows of activations against panels of a matrix.
struct QuantPiece {
  int64_t row, rows, panel, panels;
  const QuantMatrix* w;
  int64_t work() const { return rows * panels * kernels::quant_panel_bytes(w->type, w->cols); }
};

// Panels of a piece stay in the second-level cache while its rows pass; few rows read the weights once, from memory.
void add_pieces(std::vector<QuantPiece>& pieces, int64_t row, int64_t rows, const QuantMatrix& w) {
  constexpr int64_t kPieceBytes = 128 << 10, kRows = 128;
  const int64_t panels = div_up(w.rows, kPanel);
  const int64_t per = std::clamp<int64_t>(kPieceBytes / kernels::quant_panel_bytes(w.type, w.cols), 1,
                                          std::max<int64_t>(1, panels / 8));
  for (int64_t p = 0; p < panels; p += per)
    for (int64_t r = 0; r < rows; r += kRows)
      pieces.push_back({row + r, std::min(kRows, rows - r), p, std::min(per, panels - p), &w});
}

// The first pieces of every task, and the end of the last: small pieces (heads of latent attention) are done several at
// a time, as handing one over takes as long as reading some KiB.
std::vector<size_t> cut_into_tasks(const std::vector<QuantPiece>& pieces) {
  constexpr int64_t kTaskBytes = 48 << 10;
  std::vector<size_t> tasks = {0};
  int64_t work = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    work += pieces[i].work();
    if (work < kTaskBytes && i + 1 < pieces.size()) continue;
    tasks.push_back(i + 1);
    work = 0;
  }
  return tasks;
}

void run_piece(const QuantPiece& t, const QuantRows& a, Mat c, kernels::GemmStore store) {
  WorkerScratch scratch;
  const int64_t k = t.w->cols;
  QuantProduct g;
  g.m = t.rows;
  g.n = std::min(t.panels * kPanel, t.w->rows - t.panel * kPanel);
  g.k = k;
  g.panels = t.w->data + t.panel * kernels::quant_panel_bytes(t.w->type, k);
  g.a = row_of(a, t.row, k);
  g.c = static_cast<char*>(c.data) + (t.row * c.stride + t.panel * kPanel) * dtype_bytes(c.dtype);
  g.c_row = c.stride;
  g.store = store;
  g.signed_codes = scratch.take<int8_t>(kPanel * k);
  kernels::quant_kernels().product[static_cast<int>(t.w->type)](g);
}

}  // namespace

void quant_products(const Exec& exec, CMat a, std::span<const int32_t> offsets, std::span<const Packed> b, Mat c,
                    kernels::GemmStore store) {
  const int64_t rows = offsets.back();
  if (rows == 0) return;
  WorkerScratch scratch;
  const QuantRows q = quantise_activations(exec, a, rows, scratch);
  std::vector<QuantPiece> pieces;
  for (size_t i = 0; i < b.size(); ++i) {
    if (b[i].quant && offsets[i + 1] > offsets[i])
      add_pieces(pieces, offsets[i], offsets[i + 1] - offsets[i], *b[i].quant);
  }
  const std::vector<size_t> tasks = cut_into_tasks(pieces);
  exec.parallel_for(static_cast<int64_t>(tasks.size()) - 1, [&](int64_t i) {
    for (size_t p = tasks[static_cast<size_t>(i)]; p < tasks[static_cast<size_t>(i) + 1]; ++p)
      run_piece(pieces[p], q, c, store);
  });
}

}  // namespace birkhoff::ops
