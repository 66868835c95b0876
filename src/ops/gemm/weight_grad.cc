// dw = dy^T x. A task owns a block of dw and walks its tokens some hundred at a time: it brings dy^T and x of these
// tokens into the layouts of the product kernels, in memory that stays in its caches, and multiplies them. So dy and x
// are read from memory once or twice and never written back repacked.
#include "ops/gemm/weight_grad.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::GemmBlock;
using kernels::GemmStore;
using kernels::kGemmRows;
using kernels::kKBlock;
using kernels::kPanel;

// Equal parts of at most `most`, each a multiple of `unit`.
int64_t even_part(int64_t size, int64_t most, int64_t unit) {
  return round_up(div_up(std::max<int64_t>(size, 1), div_up(std::max<int64_t>(size, 1), most)), unit);
}

struct Plan {
  int64_t rows, cols;     // of a block of dw
  int64_t parts, tokens;  // cuts of T, and their length
};

Plan make_plan(DType dtype, int64_t tokens, int64_t n, int64_t k, int64_t groups) {
  constexpr int64_t kTasks = 8, kMostPartElements = int64_t{1} << 20, kLeastTokens = 256;
  Plan p{even_part(n, 256, kGemmRows), even_part(k, dtype == DType::bf16 ? 512 : 256, kGemmRows), 1, tokens};
  const auto blocks = [&] { return groups * div_up(n, p.rows) * div_up(k, p.cols); };
  if (groups > 1 || n * k == 0 || blocks() >= kTasks) return p;
  const int64_t parts = std::min(div_up(kTasks, blocks()), tokens / kLeastTokens);
  if (parts > 1 && parts * n * k <= kMostPartElements) {
    p.tokens = round_up(div_up(tokens, parts), kKBlock);
    p.parts = div_up(tokens, p.tokens);
  } else {
    while (blocks() < kTasks && p.rows > 2 * kGemmRows) p.rows = even_part(n, p.rows - kGemmRows, kGemmRows);
  }
  return p;
}

// One block of dw over one run of tokens.
struct WeightGradTask {
  CMat dy, x;  // [tokens, rows], [tokens, cols]
  float* dw;
  int64_t dw_row;
  GemmStore store;
};

// Chunks of tokens: the sums of a chunk are taken up by the next, so their length changes speed, not results.
template <class F>
void for_chunks(int64_t tokens, int64_t chunk, GemmBlock& g, F&& f) {
  int64_t t = 0;
  do {
    const int64_t count = std::min(chunk, tokens - t);
    g.first = t == 0;
    g.last = t + count == tokens;
    f(t, count);
    t += count;
  } while (t < tokens);
}

void take_partial(GemmBlock& g, WorkerScratch& scratch) {
  g.partial_block = kernels::partial_block(g.m);
  g.partial = scratch.take<float>(kernels::partial_floats(g.m, g.n));
}

GemmBlock block_of(const WeightGradTask& t) {
  GemmBlock g;
  g.m = t.dy.cols;
  g.n = t.x.cols;
  g.c = t.dw;
  g.c_row = t.dw_row;
  g.store = t.store;
  return g;
}

void run_bf16(const WeightGradTask& t) {
  constexpr int64_t kChunk = 512;
  const auto& pack = kernels::pack_kernels();
  const auto run = kernels::gemm_kernels().bf16_pairs;
  const int64_t tokens = t.dy.rows, chunk = std::min(round_up(tokens, kKBlock), kChunk);
  WorkerScratch scratch;
  GemmBlock g = block_of(t);
  if (tokens > kChunk) take_partial(g, scratch);
  g.a_row = chunk + kKBlock;  // an odd number of cache lines: rows spread over the cache's sets
  g.b_panel = chunk * kPanel;
  bf16* a = scratch.take<bf16>(g.m * g.a_row);
  bf16* b = scratch.take<bf16>(div_up(g.n, kPanel) * g.b_panel);
  g.a = a;
  g.b = b;
  for_chunks(tokens, chunk, g, [&](int64_t first, int64_t count) {
    g.k = round_up(count, kKBlock);
    pack.transpose_bf16(t.dy.b16(first), t.dy.stride, count, g.m, a, g.a_row);
    pack.rows_bf16_to_pairs(t.x.b16(first), t.x.stride, count, g.n, b, g.b_panel);
    run(g);
  });
}

// A chunk of x becomes panels and one of dy strips: read in place, rows of a wide matrix would compete for a few sets
// of the first-level cache, those of x once for every strip and those of dy once for every panel.
void run_f32(const WeightGradTask& t) {
  constexpr int64_t kChunk = 128;
  const auto& pack = kernels::pack_kernels();
  const auto& kernel = kernels::gemm_kernels();
  const int64_t strips = div_up(t.dy.cols, kernel.strip_rows), chunk = std::min(t.dy.rows, kChunk);
  WorkerScratch scratch;
  GemmBlock g = block_of(t);
  if (t.dy.rows > kChunk) take_partial(g, scratch);
  float* a = scratch.take<float>(strips * kernels::strip_floats(chunk, kernel.strip_rows));
  g.b_panel = chunk * kPanel;
  float* b = scratch.take<float>(div_up(g.n, kPanel) * g.b_panel);
  g.a = a;
  g.b = b;
  for_chunks(t.dy.rows, kChunk, g, [&](int64_t first, int64_t count) {
    g.k = count;
    g.a_row = kernels::strip_floats(count, kernel.strip_rows);
    if (t.dy.dtype == DType::f32)
      kernel.strips_from_f32(t.dy.f32(first), t.dy.stride, count, g.m, a);
    else
      kernel.strips_from_bf16(t.dy.b16(first), t.dy.stride, count, g.m, a);
    if (t.x.dtype == DType::f32)
      pack.rows_f32_to_f32(t.x.f32(first), t.x.stride, count, g.n, b, g.b_panel);
    else
      pack.rows_bf16_to_f32(t.x.b16(first), t.x.stride, count, g.n, b, g.b_panel);
    kernel.strips_f32(g);
  });
}

void run_task(const WeightGradTask& t) {
  if (t.dy.dtype == DType::bf16 && kernels::gemm_kernels().bf16_pairs)
    run_bf16(t);
  else
    run_f32(t);
}

void check(const CMat& dy, const CMat& x) {
  BK_CHECK_EQ(dy.rows, x.rows);
  BK_CHECK(dy.dtype == DType::f32 || x.dtype == DType::bf16);
}
void check(const Mat& dw, int64_t n, int64_t k) {
  check_shape(dw, n, k);
  BK_CHECK(dw.dtype == DType::f32);
}

// All blocks of one dw: block (i, j) of part s sums into to + s * part_stride.
void add_tasks(std::vector<WeightGradTask>& tasks, const Plan& p, CMat dy, CMat x, float* to, int64_t to_row,
               int64_t part_stride, GemmStore store) {
  for (int64_t s = 0; s < p.parts; ++s) {
    const int64_t first = s * p.tokens, count = p.parts == 1 ? dy.rows : std::min(p.tokens, dy.rows - first);
    const CMat dys = dy.row_block(first, count), xs = x.row_block(first, count);
    for (int64_t i = 0; i < dy.cols; i += p.rows) {
      for (int64_t j = 0; j < x.cols; j += p.cols) {
        tasks.push_back({dys.col_block(i, std::min(p.rows, dy.cols - i)), xs.col_block(j, std::min(p.cols, x.cols - j)),
                         to + s * part_stride + i * to_row + j, to_row, store});
      }
    }
  }
}

void run_tasks(const Exec& exec, const std::vector<WeightGradTask>& tasks) {
  exec.parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) { run_task(tasks[static_cast<size_t>(i)]); });
}

// dw (+)= part 0 + part 1 + ...
void combine_parts(const Exec& exec, const float* parts, int64_t count, Mat dw, Store store) {
  const int64_t per = std::max<int64_t>(1, (int64_t{1} << 16) / (dw.cols * (count + 2)));
  exec.parallel_for(div_up(dw.rows, per), [&](int64_t task) {
    for (int64_t r = task * per; r < std::min(dw.rows, (task + 1) * per); ++r)
      kernels::pack_kernels().add_parts(dw.f32(r), parts + r * dw.cols, count, dw.size(), dw.cols,
                                        store == Store::accumulate);
  });
}

}  // namespace

int64_t weight_grad_scratch_bytes(DType dtype, int64_t tokens, int64_t n, int64_t k, int64_t groups) {
  const Plan p = make_plan(dtype, tokens, n, k, groups);
  return p.parts > 1 ? round_up(p.parts * n * k * 4, Arena::kAlign) : 0;
}

void gemm_weight_grad(const Exec& exec, CMat dy, CMat x, Mat dw, Arena& scratch, Store store) {
  check(dy, x);
  check(dw, dy.cols, x.cols);
  const Plan p = make_plan(dy.dtype, dy.rows, dy.cols, x.cols, 1);
  Arena::Scope scope(scratch);
  float* parts = p.parts > 1 ? scratch.take<float>(p.parts * dw.size()) : nullptr;
  if (exec.dry() || dw.empty() || (dy.rows == 0 && store == Store::accumulate)) return;
  Exec::Span span(exec, Work::gemm);
  std::vector<WeightGradTask> tasks;
  if (parts) {
    add_tasks(tasks, p, dy, x, parts, dw.cols, dw.size(), GemmStore::assign_f32);
    run_tasks(exec, tasks);
    combine_parts(exec, parts, p.parts, dw, store);
  } else {
    add_tasks(tasks, p, dy, x, dw.f32(), dw.stride, 0,
              store == Store::assign ? GemmStore::assign_f32 : GemmStore::add_f32);
    run_tasks(exec, tasks);
  }
}

void gemm_weight_grad_serial(CMat dy, CMat x, Mat dw, Store store) {
  check(dy, x);
  check(dw, dy.cols, x.cols);
  if (dw.empty() || (dy.rows == 0 && store == Store::accumulate)) return;
  Plan p = make_plan(dy.dtype, dy.rows, dy.cols, x.cols, 1);
  p.parts = 1;
  std::vector<WeightGradTask> tasks;
  add_tasks(tasks, p, dy, x, dw.f32(), dw.stride, 0,
            store == Store::assign ? GemmStore::assign_f32 : GemmStore::add_f32);
  for (const WeightGradTask& t : tasks) run_task(t);
}

void grouped_weight_grad(const Exec& exec, CMat dy, CMat x, std::span<const int32_t> offsets, std::span<const Mat> dw,
                         Arena&, Store store) {
  check(dy, x);
  BK_CHECK_EQ(offsets.size(), dw.size() + 1);
  for (const Mat& w : dw) check(w, dy.cols, x.cols);
  if (exec.dry() || dw.empty() || dy.cols * x.cols == 0) return;
  BK_CHECK_EQ(offsets[0], 0);
  BK_CHECK_LE(offsets.back(), dy.rows);
  Exec::Span span(exec, Work::gemm);
  Plan p = make_plan(dy.dtype, offsets.back(), dy.cols, x.cols, static_cast<int64_t>(dw.size()));
  p.parts = 1;  // group sizes are data: their sums are never cut
  std::vector<WeightGradTask> tasks;
  for (size_t g = 0; g < dw.size(); ++g) {
    BK_CHECK_LE(offsets[g], offsets[g + 1]);
    const int64_t rows = offsets[g + 1] - offsets[g];
    if (!dw[g].data || (rows == 0 && store == Store::accumulate)) continue;
    add_tasks(tasks, p, dy.row_block(offsets[g], rows), x.row_block(offsets[g], rows), dw[g].f32(), dw[g].stride, 0,
              store == Store::assign ? GemmStore::assign_f32 : GemmStore::add_f32);
  }
  run_tasks(exec, tasks);
}

}  // namespace birkhoff::ops
