#include "layers/compressor.h"

#include "ops/rows/elementwise.h"
#include "ops/rows/norm.h"

namespace birkhoff::layers {

Compressor::Weights::Weights(const Spec& s)
    : kv_gate({{"kv_proj", s.shape.row_cols()}, {"gate_proj", s.shape.row_cols()}}, s.dim),
      position_bias(nullptr, DType::f32, s.shape.ratio, s.shape.row_cols()),
      norm(nullptr, DType::f32, 1, s.shape.dim) {}

Compressor::Cache Compressor::Cache::take(Arena& arena, const Spec& s) {
  return {arena.mat(f32_t, s.shape.most_pending_rows(), 2 * s.shape.row_cols())};
}

Mat Compressor::reserve_rows(Arena& arena, const Spec& s, int64_t tokens) {
  return arena.mat(f32_t, tokens, 2 * s.shape.row_cols());
}

Compressor::Saved Compressor::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, int64_t past) {
  const int64_t most = s.shape.most_windows(past, tokens);
  return {reserve_rows(arena, s, s.shape.pending_rows(past) + tokens), arena.mat(dtype, most, s.shape.dim),
          arena.mat(f32_t, most, 1)};
}

void Compressor::project(const Pass& p, const Weights& w, CMat x, Mat kz) { linear_forward(p.exec, w.kv_gate, x, kz); }

void Compressor::continue_rows(const Pass& p, const Spec& s, CMat rows, int64_t past, const Cache& cache, Mat kz) {
  const int64_t before = kz.rows - rows.rows, left = s.shape.pending_rows(past + rows.rows);
  ops::copy(p.exec, cache.pending.row_block(0, before), kz.row_block(0, before));
  ops::copy(p.exec, rows, kz.row_block(before, rows.rows));
  ops::copy(p.exec, kz.row_block(kz.rows - left, left), cache.pending.row_block(0, left));
}

void Compressor::compress(const Pass& p, const Spec& s, const Weights& w, const ops::CompressorPlan& plan, Saved& sv,
                          Mat entries) {
  Arena::Scope scope(p.scratch);
  const auto n = static_cast<int64_t>(plan.windows.size());
  Mat sum = p.scratch.mat(f32_t, n, s.shape.dim);
  ops::compress_forward(p.exec, s.shape, plan.windows, sv.kz, w.position_bias, sum);
  const Mat pooled = sv.pooled.row_block(0, n);
  ops::copy(p.exec, sum, pooled);
  ops::rms_norm_forward(p.exec, pooled, w.norm, s.eps, entries, sv.rstd.row_block(0, n));
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::interleaved, plan.position, entries,
                  {s.shape.dim - s.rope, 1, s.shape.dim});
}

void Compressor::backward(const Pass& p, const Spec& s, const Weights& w, Input in, const Saved& sv, Mat d_entries,
                          Mat dx, Weights& g) {
  Arena::Scope scope(p.scratch);
  const auto n = static_cast<int64_t>(in.plan.windows.size());
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::interleaved, in.plan.position, d_entries,
                  {s.shape.dim - s.rope, 1, s.shape.dim}, /*inverse=*/true);
  ops::rms_norm_backward(p.exec, sv.pooled.row_block(0, n), w.norm, sv.rstd.row_block(0, n), d_entries, d_entries,
                         g.norm, p.scratch);
  Mat d_sum = p.scratch.mat(f32_t, n, s.shape.dim), d_kz = p.scratch.mat(f32_t, in.x.rows, sv.kz.cols);
  ops::copy(p.exec, d_entries, d_sum);
  ops::compress_backward(p.exec, s.shape, in.plan.windows, sv.kz, w.position_bias, d_sum, d_kz, g.position_bias);
  Mat dy = d_kz;
  if (in.x.dtype != f32_t) {
    dy = p.scratch.mat(in.x.dtype, in.x.rows, sv.kz.cols);
    ops::copy(p.exec, d_kz, dy);
  }
  linear_backward(p.exec, w.kv_gate, in.x, dy, dx, g.kv_gate, p.scratch);
}

}  // namespace birkhoff::layers
