#include "ops/gemm/gemm.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/gemm/quant_product.h"
#include "ops/gemm/stored_panels.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::GemmBlock;
using kernels::GemmStore;
using kernels::kGemmRows;
using kernels::kKBlock;
using kernels::kPanel;

// Extents of the tasks, functions of the shape alone.
struct Blocking {
  int64_t rows, cols, depth;
};
constexpr int64_t kLeastTasks = 8;  // at least, where rows allow it

// A task keeps its columns of B (depth rows of them at a time) in the second-level cache while rows of A pass. A stored
// B is expanded depth rows at a time.
Blocking choose_blocking(int64_t m, const Packed& p, int64_t least_tasks) {
  const int64_t n = p.n, k = p.k;
  const DType dtype = p.dtype;
  constexpr int64_t kCacheBytes = 1 << 20, kWholeDepth = 2048, kDepth = 512, kFewRowsBytes = 256 << 10,
                    kFewColumns = 64, kTaskFlops = 48'000'000;
  const int64_t row_bytes = std::max<int64_t>(1, k * dtype_bytes(dtype));
  Blocking b;
  b.depth = k <= (p.stored ? kDepth : kWholeDepth) ? k : kDepth;
  const auto columns = [&](int64_t count, int64_t most) {
    most = std::clamp(count / kFewColumns * kFewColumns, kFewColumns, most);
    return std::max(kGemmRows, round_up(div_up(n, std::max<int64_t>(1, div_up(n, most))), kGemmRows));
  };
  if (m <= kGemmRows) {  // B passes once, from memory
    b.rows = kGemmRows;
    b.cols = columns(kFewRowsBytes / row_bytes, 1024);
    return b;
  }
  b.cols = b.depth < k ? columns(512, 512) : columns(kCacheBytes / row_bytes, 1024);
  const int64_t flops = kTaskFlops / (dtype == DType::bf16 ? 1 : 8);  // fp32 arithmetic is that much slower
  b.rows = std::clamp<int64_t>(flops / std::max<int64_t>(1, 2 * b.cols * k) / kGemmRows * kGemmRows, 128, 256);
  while (div_up(m, b.rows) * div_up(n, b.cols) < least_tasks && b.rows > kGemmRows) b.rows /= 2;
  return b;
}

struct GemmTask {
  int64_t row, rows, col, cols;
  const Packed* b;
};

// One row against weights that can be read where they lie; false where they need panels.
bool run_row(const GemmTask& t, CMat a, Mat c, GemmStore store) {
  const auto run = kernels::gemm_kernels().row_by_bf16_rows;
  const bf16* rows = run && t.rows == 1 ? bf16_rows(*t.b, t.col, t.cols) : nullptr;
  if (!rows) return false;
  WorkerScratch scratch;
  GemmBlock g;
  g.m = 1;
  g.n = t.cols;
  g.k = t.b->k;
  g.b = rows;
  g.b_panel = g.k;
  g.c = static_cast<char*>(c.data) + (t.row * c.stride + t.col) * dtype_bytes(c.dtype);
  g.store = store;
  if (a.dtype == DType::bf16) {
    float* wide = scratch.take<float>(g.k);
    kernels::pack_kernels().widen(a.b16(t.row), a.stride, 1, g.k, wide, g.k);
    g.a = wide;
  } else {
    g.a = a.f32(t.row);
  }
  run(g);
  return true;
}

// One task: its rows and columns, depth rows of B at a time.
void run_task(const GemmTask& t, CMat a, Mat c, GemmStore store, int64_t depth) {
  if (run_row(t, a, c, store)) return;
  const auto& kernel = kernels::gemm_kernels();
  const Packed& p = *t.b;
  const bool pairs = p.dtype == DType::bf16;
  const auto run = !pairs ? kernel.f32 : kernel.bf16_pairs ? kernel.bf16_pairs : kernel.f32_pairs;
  const bool widen = a.dtype == DType::bf16 && run != kernel.bf16_pairs;

  WorkerScratch scratch;
  GemmBlock g;
  g.m = t.rows;
  g.n = t.cols;
  const int64_t held = p.stored ? std::min(depth, p.k) : p.k;
  g.b_panel = kPanel * (pairs ? round_up(held, kKBlock) : held);
  g.c = static_cast<char*>(c.data) + (t.row * c.stride + t.col) * dtype_bytes(c.dtype);
  g.c_row = c.stride;
  g.store = store;
  if (depth < p.k) {
    g.partial_block = kernels::partial_block(t.rows);
    g.partial = scratch.take<float>(kernels::partial_floats(t.rows, t.cols));
  }
  float* wide = widen ? scratch.take<float>(t.rows * depth) : nullptr;
  void* panels =
      p.stored ? scratch.take_bytes(static_cast<size_t>(div_up(t.cols, kPanel) * g.b_panel * dtype_bytes(p.dtype)))
               : nullptr;

  int64_t k = 0;
  do {
    g.k = std::min(depth, p.k - k);
    g.first = k == 0;
    g.last = k + g.k == p.k;
    if (p.stored) {
      expand_panels(p, t.col, t.cols, k, g.k, panels, g.b_panel);
      g.b = panels;
    } else {
      g.b = static_cast<const char*>(p.data) + (t.col / kPanel * g.b_panel + k * kPanel) * dtype_bytes(p.dtype);
    }
    if (widen) {
      kernels::pack_kernels().widen(a.b16(t.row) + k, a.stride, t.rows, g.k, wide, depth);
      g.a = wide;
      g.a_row = depth;
    } else {
      g.a = static_cast<const char*>(a.data) + (t.row * a.stride + k) * dtype_bytes(a.dtype);
      g.a_row = a.stride;
    }
    run(g);
    k += g.k;
  } while (k < p.k);
}

// Tasks of one group: for each block of columns all blocks of rows, so that a worker meets the same B several times.
void add_tasks(std::vector<GemmTask>& tasks, int64_t row, int64_t rows, const Packed* b, const Blocking& blocking) {
  if (rows == 0) return;
  const int64_t per = round_up(div_up(rows, div_up(rows, blocking.rows)), kGemmRows);
  for (int64_t c = 0; c < b->n; c += blocking.cols) {
    for (int64_t r = 0; r < rows; r += per)
      tasks.push_back({row + r, std::min(per, rows - r), c, std::min(blocking.cols, b->n - c), b});
  }
}

GemmStore checked_store(CMat a, const Packed& b, const Mat& c, Store store) {
  BK_CHECK_EQ(a.cols, b.k);
  BK_CHECK_EQ(c.cols, b.n);
  BK_CHECK(b.dtype == DType::f32 || a.dtype == DType::bf16 || b.quant);
  BK_CHECK(c.dtype == DType::f32 || store == Store::assign);
  if (c.dtype == DType::bf16) return GemmStore::assign_bf16;
  return store == Store::assign ? GemmStore::assign_f32 : GemmStore::add_f32;
}

void run_tasks(const Exec& exec, const std::vector<GemmTask>& tasks, CMat a, Mat c, GemmStore store, int64_t depth) {
  exec.parallel_for(static_cast<int64_t>(tasks.size()),
                    [&](int64_t i) { run_task(tasks[static_cast<size_t>(i)], a, c, store, depth); });
}

}  // namespace

void gemm(const Exec& exec, CMat a, const Packed& b, Mat c, Store store) {
  BK_CHECK_EQ(a.rows, c.rows);
  const GemmStore s = checked_store(a, b, c, store);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::gemm);
  if (b.quant) {
    const int32_t offsets[2] = {0, static_cast<int32_t>(c.rows)};
    return quant_products(exec, a, offsets, {&b, 1}, c, s);
  }
  const Blocking blocking = choose_blocking(c.rows, b, kLeastTasks);
  std::vector<GemmTask> tasks;
  add_tasks(tasks, 0, c.rows, &b, blocking);
  run_tasks(exec, tasks, a, c, s, blocking.depth);
}

void gemm_serial(CMat a, const Packed& b, Mat c, Store store) {
  BK_CHECK_EQ(a.rows, c.rows);
  BK_CHECK(!b.quant);
  const GemmStore s = checked_store(a, b, c, store);
  const Blocking blocking = choose_blocking(c.rows, b, 1);
  std::vector<GemmTask> tasks;
  add_tasks(tasks, 0, c.rows, &b, blocking);
  for (const GemmTask& t : tasks) run_task(t, a, c, s, blocking.depth);
}

void grouped_gemm(const Exec& exec, CMat a, std::span<const int32_t> offsets, std::span<const Packed> b, Mat c,
                  Store store) {
  BK_CHECK_EQ(offsets.size(), b.size() + 1);
  BK_CHECK_EQ(a.rows, c.rows);
  if (b.empty()) return;
  GemmStore s{};
  for (const Packed& p : b) {
    BK_CHECK(p.k == b[0].k && p.n == b[0].n && p.dtype == b[0].dtype);
    s = checked_store(a, p, c, store);
  }
  if (exec.dry()) return;
  BK_CHECK_EQ(offsets[0], 0);
  BK_CHECK_LE(offsets.back(), a.rows);
  Exec::Span span(exec, Work::gemm);
  // Of a file whose experts have several formats some groups are quantised and some are not.
  const auto quantised = [](const Packed& p) { return p.quant != nullptr; };
  if (std::any_of(b.begin(), b.end(), quantised)) quant_products(exec, a, offsets, b, c, s);
  const auto stored = std::find_if_not(b.begin(), b.end(), quantised);
  if (stored == b.end()) return;
  const auto groups = static_cast<int64_t>(b.size());
  const Blocking blocking = choose_blocking(div_up(offsets.back(), groups), *stored, kLeastTasks);
  std::vector<GemmTask> tasks;
  for (size_t i = 0; i < b.size(); ++i) {
    BK_CHECK_LE(offsets[i], offsets[i + 1]);
    if (!quantised(b[i])) add_tasks(tasks, offsets[i], offsets[i + 1] - offsets[i], &b[i], blocking);
  }
  run_tasks(exec, tasks, a, c, s, blocking.depth);
}

}  // namespace birkhoff::ops
