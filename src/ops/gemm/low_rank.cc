#include "ops/gemm/low_rank.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "kernels/rows/elementwise.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/weight_grad.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kAdapterRows = 32;   // of a task
constexpr int64_t kAdapterCols = 512;  // of y that a task holds in fp32 before it adds them

void check(CMat x, CMat y, std::span<const int32_t> offsets, std::span<const LowRank> l) {
  BK_CHECK_EQ(x.rows, y.rows);
  BK_CHECK_EQ(offsets.size(), l.size() + 1);
  for (const LowRank& g : l) {
    BK_CHECK_EQ(g.a_t.k, x.cols);
    BK_CHECK_EQ(g.b_t.n, y.cols);
    BK_CHECK_EQ(g.a_t.n, g.b_t.k);
    BK_CHECK_EQ(g.a_t.n, l[0].a_t.n);
  }
}

void multiply(const float* a, int64_t a_row, int64_t rows, const Packed& b, int64_t first_col, int64_t cols, float* c,
              int64_t c_row) {
  kernels::GemmBlock g;
  g.m = rows, g.n = cols, g.k = b.k;
  g.a = a, g.a_row = a_row;
  g.b_panel = kernels::kPanel * b.k;
  g.b = static_cast<const float*>(b.data) + first_col / kernels::kPanel * g.b_panel;
  g.c = c, g.c_row = c_row;
  kernels::gemm_kernels().f32(g);
}

// Some rows of one group.
void run_task(CMat x, const LowRank& l, Mat y) {
  WorkerScratch memory;
  const auto& k = kernels::elementwise_kernels();
  const int64_t rank = l.a_t.n;
  const float* in = nullptr;
  int64_t in_row = x.stride;
  if (x.dtype == f32_t) {
    in = x.f32();
  } else {
    float* wide = memory.take<float>(x.rows * x.cols);
    for (int64_t r = 0; r < x.rows; ++r) k.copy_bf(x.b16(r), wide + r * x.cols, x.cols);
    in = wide, in_row = x.cols;
  }
  float* h = memory.take<float>(x.rows * rank);
  float* part = memory.take<float>(x.rows * std::min(kAdapterCols, y.cols));
  multiply(in, in_row, x.rows, l.a_t, 0, rank, h, rank);
  for (int64_t i = 0; i < x.rows * rank; ++i) h[i] *= l.scale;
  for (int64_t c = 0; c < y.cols; c += kAdapterCols) {
    const int64_t n = std::min(kAdapterCols, y.cols - c);
    multiply(h, rank, x.rows, l.b_t, c, n, part, n);
    for (int64_t r = 0; r < y.rows; ++r) {
      if (y.dtype == f32_t)
        k.add_ff(part + r * n, y.f32(r) + c, n);
      else
        k.add_fb(part + r * n, y.b16(r) + c, n);
    }
  }
}

template <class Get>
std::vector<Packed> packed(std::span<const LowRank> l, Get get) {
  std::vector<Packed> v;
  for (const LowRank& g : l) v.push_back(get(g));
  return v;
}

}  // namespace

LowRank LowRank::take(Arena& arena, int64_t in, int64_t rank, int64_t out, bool with_backward) {
  LowRank l;
  l.a_t = Packed::take(arena, f32_t, in, rank);
  l.b_t = Packed::take(arena, f32_t, rank, out);
  if (with_backward) {
    l.a = Packed::take(arena, f32_t, rank, in);
    l.b = Packed::take(arena, f32_t, out, rank);
  }
  return l;
}

void LowRank::refresh(const Exec& exec, CMat a_master, CMat b_master) const {
  pack_transposed(exec, a_master, a_t);
  pack_transposed(exec, b_master, b_t);
  if (a.empty()) return;
  pack(exec, a_master, a);
  pack(exec, b_master, b);
}

void low_rank_forward(const Exec& exec, CMat x, std::span<const int32_t> offsets, std::span<const LowRank> l, Mat y) {
  check(x, y, offsets, l);
  if (exec.dry() || l.empty()) return;
  BK_CHECK_LE(offsets.back(), x.rows);
  Exec::Span span(exec, Work::gemm);
  struct Task {
    int64_t first, rows;
    const LowRank* l;
  };
  std::vector<Task> tasks;
  for (size_t g = 0; g < l.size(); ++g)
    for (int64_t r = offsets[g]; r < offsets[g + 1]; r += kAdapterRows)
      tasks.push_back({r, std::min(kAdapterRows, offsets[g + 1] - r), &l[g]});
  exec.parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const Task& t = tasks[static_cast<size_t>(i)];
    run_task(x.row_block(t.first, t.rows), *t.l, y.row_block(t.first, t.rows));
  });
}

void low_rank_backward(const Exec& exec, CMat x, CMat dy, std::span<const int32_t> offsets, std::span<const LowRank> l,
                       const LowRankGradients& d, Arena& scratch) {
  check(x, dy, offsets, l);
  BK_CHECK_EQ(d.d_a.size(), l.size());
  BK_CHECK_EQ(d.d_b.size(), l.size());
  if (l.empty()) return;
  Arena::Scope scope(scratch);
  const int64_t T = x.rows, rank = l[0].a_t.n;
  const float scale_by = l[0].scale;
  Mat h = scratch.mat(f32_t, T, rank), dh = scratch.mat(f32_t, T, rank);
  CMat wide = dy;
  if (dy.dtype != f32_t) {
    Mat converted = scratch.mat(f32_t, T, dy.cols);
    copy(exec, dy, converted);
    wide = converted;
  }
  grouped_gemm(exec, x, offsets, packed(l, [](auto& g) { return g.a_t; }), h);
  scale(exec, scale_by, h);
  grouped_weight_grad(exec, wide, h, offsets, d.d_b, scratch);
  grouped_gemm(exec, wide, offsets, packed(l, [](auto& g) { return g.b; }), dh);
  scale(exec, scale_by, dh);
  grouped_weight_grad(exec, dh, x, offsets, d.d_a, scratch);
  if (!d.dx.data) return;
  Mat through = scratch.mat(f32_t, T, d.dx.cols);
  grouped_gemm(exec, dh, offsets, packed(l, [](auto& g) { return g.a; }), through);
  const int64_t rows = exec.dry() ? T : offsets.back();
  add(exec, through.row_block(0, rows), d.dx.row_block(0, rows));
}

}  // namespace birkhoff::ops
