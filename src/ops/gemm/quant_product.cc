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
  return {all.codes + row * k, all.scale + row * blocks, all.start + row * blocks};
}

QuantRows quantise_activations(const Exec& exec, CMat a, int64_t rows, QuantType weights, WorkerScratch& scratch) {
  const int64_t k = a.cols, blocks = k / kQuantBlock;
  QuantRows q;
  q.codes = scratch.take<int8_t>(rows * k);
  q.scale = scratch.take<float>(rows * blocks);
  q.start = scratch.take<int32_t>(rows * blocks);
  constexpr int64_t kTaskElements = 1 << 15;
  const int64_t per = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, k));
  const auto& kernel = kernels::quant_kernels();
  const auto run = [&](int64_t task) {
    for (int64_t r = task * per; r < std::min(rows, (task + 1) * per); ++r)
      a.dtype == DType::f32 ? kernel.activations_f32(a.f32(r), k, weights, row_of(q, r, k))
                            : kernel.activations_bf16(a.b16(r), k, weights, row_of(q, r, k));
  };
  const int64_t tasks = div_up(rows, per);
  if (tasks == 1)
    run(0);
  else
    exec.parallel_for(tasks, run);
  return q;
}

struct QuantTask {
  int64_t row, rows, panel, panels;
  const QuantMatrix* w;
};

// A task's panels stay in the second-level cache while its rows pass; few rows read the weights once, from memory.
void add_tasks(std::vector<QuantTask>& tasks, int64_t row, int64_t rows, const QuantMatrix& w) {
  constexpr int64_t kTaskBytes = 128 << 10, kRows = 128;
  const int64_t panels = div_up(w.rows, kPanel);
  const int64_t per =
      std::clamp<int64_t>(kTaskBytes / kernels::quant_panel_bytes(w.type, w.cols), 1, std::max<int64_t>(1, panels / 8));
  for (int64_t p = 0; p < panels; p += per)
    for (int64_t r = 0; r < rows; r += kRows)
      tasks.push_back({row + r, std::min(kRows, rows - r), p, std::min(per, panels - p), &w});
}

}  // namespace

void quant_products(const Exec& exec, CMat a, std::span<const int32_t> offsets, std::span<const Packed> b, Mat c,
                    kernels::GemmStore store) {
  const int64_t rows = offsets.back(), k = b[0].k;
  if (rows == 0) return;
  WorkerScratch scratch;
  const QuantType type = b[0].quant->type;
  const QuantRows q = quantise_activations(exec, a, rows, type, scratch);
  std::vector<QuantTask> tasks;
  for (size_t i = 0; i < b.size(); ++i) {
    BK_CHECK(b[i].quant && b[i].quant->type == type);
    if (offsets[i + 1] > offsets[i]) add_tasks(tasks, offsets[i], offsets[i + 1] - offsets[i], *b[i].quant);
  }
  const auto& kernel = kernels::quant_kernels();
  const auto run = type == QuantType::q4 ? kernel.q4 : kernel.q8;
  exec.parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const QuantTask& t = tasks[static_cast<size_t>(i)];
    QuantProduct g;
    g.m = t.rows;
    g.n = std::min(t.panels * kPanel, t.w->rows - t.panel * kPanel);
    g.k = k;
    g.panels = t.w->data + t.panel * kernels::quant_panel_bytes(type, k);
    g.a = row_of(q, t.row, k);
    g.c = static_cast<char*>(c.data) + (t.row * c.stride + t.panel * kPanel) * dtype_bytes(c.dtype);
    g.c_row = c.stride;
    g.store = store;
    run(g);
  });
}

}  // namespace birkhoff::ops
