#include "ops/attention/compressor.h"

#include <algorithm>

#include "kernels/attention/compressor.h"
#include "kernels/rows/elementwise.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kCompressorTaskElements = 1 << 15;

void check(const CompressorShape& s, std::span<const CompressorWindow> windows, CMat kz, CMat ape, CMat entries) {
  BK_CHECK(s.dim > 0 && s.ratio > 0);
  BK_CHECK_EQ(kz.cols, 2 * s.row_cols());
  check_shape(ape, s.ratio, s.row_cols());
  check_shape(entries, static_cast<int64_t>(windows.size()), s.dim);
  BK_CHECK(kz.dtype == f32_t && ape.dtype == f32_t && entries.dtype == f32_t);
}

int64_t previous_rows(const CompressorShape& s, const CompressorWindow& w) {
  return s.overlap && w.has_previous ? s.ratio : 0;
}

// The window before through the first half of the channels, the own window through the last.
struct Runs {
  kernels::CompressorRun run[2];
  Runs(const CompressorShape& s, const CompressorWindow& w, CMat kz, CMat ape) {
    const int64_t before = previous_rows(s, w), own = s.row_cols() - s.dim;
    BK_CHECK(w.first_row - before >= 0 && w.first_row + s.ratio <= kz.rows);
    const auto make = [&](int64_t first, int64_t rows, int64_t col) {
      const float* k = kz.f32(first) + col;
      return kernels::CompressorRun{k, k + s.row_cols(), ape.f32() + col, kz.stride, ape.stride, rows};
    };
    run[0] = make(w.first_row - before, before, 0);
    run[1] = make(w.first_row, s.ratio, own);
  }
};

template <class F>
void for_windows(const Exec& exec, const CompressorShape& s, std::span<const CompressorWindow> windows, F&& f) {
  const auto n = static_cast<int64_t>(windows.size());
  const int64_t step = std::max<int64_t>(1, kCompressorTaskElements / (s.ratio * s.row_cols()));
  exec.parallel_for((n + step - 1) / step, [&](int64_t task) {
    for (int64_t i = task * step; i < std::min(n, (task + 1) * step); ++i) f(i, windows[static_cast<size_t>(i)]);
  });
}

}  // namespace

CompressorPlan CompressorPlan::take(Arena& arena, const CompressorShape& s, int64_t cached, int64_t tokens) {
  const auto ints = [&](int64_t n) { return std::span(arena.take<int32_t>(n), static_cast<size_t>(n)); };
  const int64_t most = s.most_windows(cached, tokens);
  return {std::span(arena.take<CompressorWindow>(most), static_cast<size_t>(most)), ints(most), ints(tokens),
          ints(tokens)};
}

namespace {
void keep_windows(CompressorPlan& plan, size_t n) {
  BK_CHECK_LE(n, plan.windows.size());
  plan.windows = plan.windows.first(n);
  plan.position = plan.position.first(n);
}
}  // namespace

void plan_documents(const CompressorShape& s, std::span<const int32_t> first_key, CompressorPlan& plan) {
  BK_CHECK_EQ(first_key.size(), plan.first.size());
  size_t n = 0, first_of_document = 0;
  for (size_t t = 0; t < first_key.size(); ++t) {
    const auto row = static_cast<int32_t>(t), start = first_key[t];
    BK_CHECK(start == row || (t > 0 && start == first_key[t - 1]));
    if (start == row) first_of_document = n;
    const int64_t seen = row - start + 1;
    if (seen % s.ratio == 0) {
      BK_CHECK_LT(n, plan.windows.size());
      plan.windows[n] = {static_cast<int32_t>(row - s.ratio + 1), seen > s.ratio};
      plan.position[n++] = static_cast<int32_t>(seen - s.ratio);
    }
    plan.first[t] = static_cast<int32_t>(first_of_document);
    plan.end[t] = static_cast<int32_t>(n);
  }
  keep_windows(plan, n);
}

void plan_continuation(const CompressorShape& s, int64_t cached, CompressorPlan& plan) {
  const auto tokens = static_cast<int64_t>(plan.first.size());
  const int64_t before = cached / s.ratio, all = (cached + tokens) / s.ratio;
  const int64_t first_row = s.pending_rows(cached) - cached % s.ratio;  // of the unfinished window
  for (int64_t i = before; i < all; ++i) {
    BK_CHECK_LT(static_cast<size_t>(i - before), plan.windows.size());
    plan.windows[static_cast<size_t>(i - before)] = {static_cast<int32_t>(first_row + (i - before) * s.ratio), i > 0};
    plan.position[static_cast<size_t>(i - before)] = static_cast<int32_t>(i * s.ratio);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    plan.first[static_cast<size_t>(t)] = 0;
    plan.end[static_cast<size_t>(t)] = static_cast<int32_t>((cached + t + 1) / s.ratio);
  }
  keep_windows(plan, static_cast<size_t>(all - before));
}

void compress_forward(const Exec& exec, const CompressorShape& s, std::span<const CompressorWindow> windows, CMat kz,
                      CMat ape, Mat entries) {
  check(s, windows, kz, ape, entries);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::attention);
  for_windows(exec, s, windows, [&](int64_t i, const CompressorWindow& w) {
    kernels::compressor_kernels().forward(Runs(s, w, kz, ape).run, entries.f32(i), s.dim);
  });
}

void compress_backward(const Exec& exec, const CompressorShape& s, std::span<const CompressorWindow> windows, CMat kz,
                       CMat ape, CMat d_entries, Mat d_kz, Mat d_ape) {
  check(s, windows, kz, ape, d_entries);
  check_shape(d_kz, kz.rows, kz.cols);
  check_shape(d_ape, ape.rows, ape.cols);
  BK_CHECK(d_kz.dtype == f32_t && d_ape.dtype == f32_t);
  if (exec.dry()) return;
  zero(exec, d_kz);
  Exec::Span span(exec, Work::attention);
  const int64_t C = s.row_cols(), own = C - s.dim;
  for_windows(exec, s, windows, [&](int64_t i, const CompressorWindow& w) {
    const auto gradient = [&](int64_t row, int64_t col) {
      float* dk = d_kz.f32(row) + col;
      return kernels::CompressorRunGradient{dk, dk + C, d_kz.stride};
    };
    const kernels::CompressorRunGradient grads[2] = {gradient(w.first_row - previous_rows(s, w), 0),
                                                     gradient(w.first_row, own)};
    kernels::compressor_kernels().backward(Runs(s, w, kz, ape).run, d_entries.f32(i), grads, s.dim);
  });
  // Every row with a gradient is row j of some window; both halves of it belong to ape[j]. Sums in window order.
  exec.parallel_for(s.ratio, [&](int64_t j) {
    for (const CompressorWindow& w : windows)
      kernels::elementwise_kernels().add_ff(d_kz.f32(w.first_row + j) + C, d_ape.f32(j), C);
  });
}

}  // namespace birkhoff::ops
