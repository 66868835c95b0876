#include "layers/compressed_attention.h"

#include <algorithm>
#include <cmath>

#include "ops/attention/visible_keys.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/norm.h"

namespace birkhoff::layers {
namespace {

using Attn = CompressedAttention;

// Queries whose key lists exist at one time in a forward pass.
constexpr int64_t kQueryBlock = 1024;

ops::SparseAttentionShape attention_shape(const Attn::Spec& s) {
  return {s.heads, 1, s.head_dim, s.head_dim, static_cast<float>(1 / std::sqrt(static_cast<double>(s.head_dim)))};
}

void rotate(const Pass& p, const Attn::Spec& s, Mat x, int64_t heads, bool inverse = false) {
  ops::rope_apply(p.exec, p.rope, ops::RopeLayout::interleaved, p.ctx.position, x,
                  {s.head_dim - s.rope, heads, s.head_dim}, inverse);
}

// Where the rows of a call stand in saved.kv.
struct Rows {
  int64_t tokens, before;        // new tokens; earlier ones their windows may reach
  int64_t first_query;           // row of the first new token
  int64_t first_entry, entries;  // entries of the whole sequence (dry: the most there can be)
  int64_t made;                  // of them by this call
};
Rows rows_of(const Attn::Spec& s, const Attn::Saved& sv, int64_t tokens) {
  Rows r{tokens, std::min(sv.cached, s.window - 1), 0, 0, 0, static_cast<int64_t>(sv.plan.windows.size())};
  // One new token is written behind the window where it lies; more are laid out apart, behind copies of what they can
  // see.
  r.first_query = sv.cache && tokens == 1 ? s.window - 1 : r.before;
  r.first_entry = r.first_query + tokens;
  r.entries = s.ratio ? sv.cached / s.ratio + r.made : 0;
  return r;
}

// The cache's window one row up; then its last row is free.
void shift_window(const Pass& p, const Attn::Spec& s, Mat kv, int64_t filled) {
  Arena::Scope scope(p.scratch);
  Mat copy = p.scratch.mat(kv.dtype, filled, kv.cols);
  ops::copy(p.exec, kv.row_block(s.window - filled, filled), copy);
  ops::copy(p.exec, copy, kv.row_block(s.window - 1 - filled, filled));
}

// Which rows of saved.kv queries first .. first + count - 1 see.
IndexMat list_keys(const Pass& p, const Attn::Spec& s, const Attn::Saved& sv, const Rows& r, int64_t first,
                   int64_t count) {
  const auto n = static_cast<size_t>(count), at = static_cast<size_t>(first);
  const int64_t most = s.indexed() ? sv.indexer.chosen.cols : r.entries;
  IndexMat keys = p.scratch.index_mat(count, std::min(s.window, r.first_entry) + most);
  CIndexMat entries(nullptr, count, 0);
  if (s.indexed()) entries = {sv.indexer.chosen.row(first), count, most};
  if (s.ratio && !s.indexed()) {
    IndexMat all = p.scratch.index_mat(count, most);
    ops::list_visible(p.exec, sv.plan.first.subspan(at, n), sv.plan.end.subspan(at, n), all);
    entries = all;
  }
  const std::span<const int32_t> reach = sv.cache ? std::span<const int32_t>(sv.first) : p.ctx.first_key;
  ops::list_window_and_entries(p.exec, reach.subspan(at, n), r.first_query + first, s.window, entries, r.first_entry,
                               keys);
  return keys;
}

// Keys of the new tokens and entries, and in front of them what a cache holds.
void fill_keys(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, CMat x, Attn::Saved& sv, const Rows& r) {
  Attn::Cache* cache = sv.cache;
  const bool apart = cache && r.tokens != 1;
  if (cache && !apart) shift_window(p, s, cache->kv, r.before);
  if (apart) ops::copy(p.exec, cache->kv.row_block(s.window - r.before, r.before), sv.kv.row_block(0, r.before));
  const Mat fresh = sv.kv.row_block(r.first_query, r.tokens);
  ops::rms_norm_forward(p.exec, sv.a.col_block(s.q_lora, s.head_dim), w.kv_norm, s.eps, fresh, sv.kv_rstd);
  rotate(p, s, fresh, 1);
  if (s.ratio) {
    const Mat all = cache ? cache->kv.row_block(s.window, r.entries) : sv.kv.row_block(r.first_entry, r.entries);
    Compressor::forward(p, s.compressor(), w.compressor, {sv.plan, x}, sv.compressor,
                        all.row_block(r.entries - r.made, r.made), {cache ? &cache->pending : nullptr, sv.cached});
    if (apart) ops::copy(p.exec, all, sv.kv.row_block(r.first_entry, r.entries));
  }
  if (apart) {
    const int64_t kept = std::min(s.window, r.before + r.tokens);
    ops::copy(p.exec, sv.kv.row_block(r.first_entry - kept, kept), cache->kv.row_block(s.window - kept, kept));
  }
}

void plan_entries(const Pass& p, const Attn::Spec& s, Attn::Saved& sv) {
  if (p.exec.dry()) return;
  if (s.ratio && sv.cache) ops::plan_continuation(s.compressor().shape, sv.cached, sv.plan);
  if (s.ratio && !sv.cache) ops::plan_documents(s.compressor().shape, p.ctx.first_key, sv.plan);
  if (!sv.cache) return;
  const int64_t tokens = p.ctx.tokens(), filled = std::min(sv.cached, s.window - 1);
  std::fill(sv.first.begin(), sv.first.end(), static_cast<int32_t>(tokens == 1 ? s.window - 1 - filled : 0));
}

}  // namespace

Attn::Weights::Weights(const Spec& s)
    : in({{"q_a_proj", s.q_lora}, {"kv_proj", s.head_dim}}, s.dim),
      q_norm(nullptr, DType::f32, 1, s.q_lora),
      kv_norm(nullptr, DType::f32, 1, s.head_dim),
      q_b({{"q_b_proj", s.heads * s.head_dim}}, s.q_lora),
      sinks(nullptr, DType::f32, 1, s.heads),
      o_a({"o_a_proj", s.groups * s.o_lora}, s.groups, s.group_cols()),
      o_b({{"o_b_proj", s.dim, Role::output_projection}}, s.groups * s.o_lora) {
  if (s.ratio) compressor = Compressor::Weights(s.compressor());
  if (s.indexed()) indexer = EntryIndexer::Weights(s.indexer());
}

Attn::Cache Attn::Cache::take(Arena& arena, const Spec& s, DType dtype, int64_t capacity) {
  Cache c;
  const int64_t entries = s.ratio ? capacity / s.ratio : 0;
  c.kv = arena.mat(dtype, s.window + entries, s.head_dim);
  if (s.ratio) c.pending = Compressor::Cache::take(arena, s.compressor());
  if (s.indexed()) {
    c.index_keys = arena.mat(dtype, entries, s.index_dim);
    c.index_pending = Compressor::Cache::take(arena, s.indexer().compressor());
  }
  return c;
}

Attn::Saved Attn::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool for_backward, Cache* cache,
                          int64_t cached) {
  Saved r;
  r.cache = cache;
  r.cached = cached;
  r.a = arena.mat(dtype, tokens, s.q_lora + s.head_dim);
  r.cq = arena.mat(dtype, tokens, s.q_lora);
  r.q_rstd = arena.mat(f32_t, tokens, 1);
  r.kv_rstd = arena.mat(f32_t, tokens, 1);
  r.head_rstd = arena.mat(f32_t, tokens * s.heads, 1);
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.q_raw = for_backward ? arena.mat(dtype, tokens, s.heads * s.head_dim) : r.q;
  r.o = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.y = arena.mat(dtype, tokens, s.groups * s.o_lora);
  if (for_backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  if (cache) r.first = std::span(arena.take<int32_t>(tokens), static_cast<size_t>(tokens));
  if (s.ratio) {
    const auto shape = s.compressor().shape;
    r.plan = ops::CompressorPlan::take(arena, shape, cached, tokens);
    r.compressor = Compressor::reserve(arena, s.compressor(), dtype, tokens, cached);
  }
  const int64_t entries = s.ratio ? (cached + tokens) / s.ratio : 0;
  if (s.indexed()) {
    const Mat keys = cache ? cache->index_keys.row_block(0, entries) : arena.mat(dtype, entries, s.index_dim);
    r.indexer = EntryIndexer::reserve(arena, s.indexer(), dtype, tokens, cached, keys);
  }
  if (cache && tokens == 1)
    r.kv = cache->kv.row_block(0, s.window + entries);
  else
    r.kv = arena.mat(dtype, std::min(cached, s.window - 1) + tokens + entries, s.head_dim);
  return r;
}

void Attn::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  plan_entries(p, s, sv);
  const Rows r = rows_of(s, sv, T);
  linear_forward(p.exec, w.in, x, sv.a);
  ops::rms_norm_forward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, s.eps, sv.cq, sv.q_rstd);
  linear_forward(p.exec, w.q_b, sv.cq, sv.q_raw);
  ops::rms_norm_forward(p.exec, sv.q_raw.reshaped(T * s.heads, s.head_dim), CMat{}, s.eps,
                        sv.q.reshaped(T * s.heads, s.head_dim), sv.head_rstd);
  rotate(p, s, sv.q, s.heads);
  fill_keys(p, s, w, x, sv, r);
  if (s.indexed())
    EntryIndexer::forward(p, s.indexer(), w.indexer, {sv.plan, x, sv.cq}, sv.indexer,
                          {sv.cache ? &sv.cache->index_pending : nullptr, sv.cached});
  const CMat keys = sv.kv.row_block(0, r.first_entry + r.entries);
  for (int64_t first = 0; first < T; first += kQueryBlock) {
    Arena::Scope block(p.scratch);
    const int64_t n = std::min(kQueryBlock, T - first);
    const IndexMat seen = list_keys(p, s, sv, r, first, n);
    ops::sparse_attention_forward(p.exec, attention_shape(s), {sv.q.row_block(first, n), keys, keys, seen, w.sinks},
                                  sv.o.row_block(first, n), sv.lse.data ? sv.lse.row_block(first, n) : Mat{},
                                  p.scratch);
  }
  Mat turned = p.scratch.mat(x.dtype, T, sv.o.cols);
  ops::copy(p.exec, sv.o, turned);
  rotate(p, s, turned, s.heads, /*inverse=*/true);
  for (size_t g = 0; g < w.o_a.of.size(); ++g) {
    const auto i = static_cast<int64_t>(g);
    linear_forward(p.exec, w.o_a.of[g], turned.col_block(i * s.group_cols(), s.group_cols()),
                   sv.y.col_block(i * s.o_lora, s.o_lora));
  }
  linear_forward(p.exec, w.o_b, sv.y, y);
}

namespace {

// dy -> gradient of the heads' outputs before they are turned back.
void output_backward(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, const Attn::Saved& sv, CMat dy,
                     Mat d_o, Attn::Weights& g) {
  Arena::Scope scope(p.scratch);
  Mat d_groups = p.scratch.mat(dy.dtype, dy.rows, sv.y.cols), turned = p.scratch.mat(dy.dtype, dy.rows, sv.o.cols);
  linear_backward(p.exec, w.o_b, sv.y, dy, d_groups, g.o_b, p.scratch);
  ops::copy(p.exec, sv.o, turned);
  rotate(p, s, turned, s.heads, /*inverse=*/true);
  for (size_t k = 0; k < w.o_a.of.size(); ++k) {
    const int64_t in = static_cast<int64_t>(k) * s.group_cols(), out = static_cast<int64_t>(k) * s.o_lora;
    linear_backward(p.exec, w.o_a.of[k], turned.col_block(in, s.group_cols()), d_groups.col_block(out, s.o_lora),
                    d_o.col_block(in, s.group_cols()), g.o_a.of[k], p.scratch);
  }
  rotate(p, s, d_o, s.heads);
}

void indexer_backward(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, CMat x, const Attn::Saved& sv,
                      const Rows& r, Attn::Weights& g, IndexerLoss& kl) {
  Arena::Scope scope(p.scratch);
  Mat target = p.scratch.mat(f32_t, x.rows, sv.indexer.chosen.cols);
  ops::attention_target(p.exec, attention_shape(s), sv.q, sv.kv.row_block(r.first_entry, r.entries), sv.lse,
                        sv.indexer.chosen, target, p.scratch);
  EntryIndexer::backward(p, s.indexer(), w.indexer, {sv.plan, x, sv.cq}, sv.indexer, target, g.indexer, kl);
}

}  // namespace

void Attn::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d, Weights& g,
                    IndexerLoss& kl) {
  BK_CHECK(!sv.cache);
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  const DType dt = x.dtype;
  const Rows r = rows_of(s, sv, T);
  if (sv.indexer.chosen.cols && kl.scale != 0) indexer_backward(p, s, w, x, sv, r, g, kl);

  Mat da = p.scratch.mat(dt, T, s.q_lora + s.head_dim), dq = p.scratch.mat(dt, T, sv.q.cols),
      dkv = p.scratch.mat(dt, T + r.entries, s.head_dim);
  {
    Arena::Scope inner(p.scratch);
    Mat d_o = p.scratch.mat(dt, T, sv.o.cols);
    output_backward(p, s, w, sv, d.dy, d_o, g);
    const CMat keys = sv.kv.row_block(0, T + r.entries);
    const IndexMat seen = list_keys(p, s, sv, r, 0, T);
    ops::sparse_attention_backward(p.exec, attention_shape(s), {{sv.q, keys, keys, seen, w.sinks}, sv.o, sv.lse}, d_o,
                                   {dq, dkv, Mat{}, g.sinks}, p.scratch);
  }
  const Mat d_rows = dkv.row_block(0, T);
  rotate(p, s, d_rows, 1, /*inverse=*/true);
  ops::rms_norm_backward(p.exec, sv.a.col_block(s.q_lora, s.head_dim), w.kv_norm, sv.kv_rstd, d_rows,
                         da.col_block(s.q_lora, s.head_dim), g.kv_norm, p.scratch);
  rotate(p, s, dq, s.heads, /*inverse=*/true);
  const Mat d_heads = dq.reshaped(T * s.heads, s.head_dim);
  ops::rms_norm_backward(p.exec, sv.q_raw.reshaped(T * s.heads, s.head_dim), CMat{}, sv.head_rstd, d_heads, d_heads,
                         Mat{}, p.scratch);
  Mat dcq = p.scratch.mat(dt, T, s.q_lora);
  linear_backward(p.exec, w.q_b, sv.cq, dq, dcq, g.q_b, p.scratch);
  ops::rms_norm_backward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, sv.q_rstd, dcq, da.col_block(0, s.q_lora),
                         g.q_norm, p.scratch);
  linear_backward(p.exec, w.in, x, da, d.dx, g.in, p.scratch);
  if (s.ratio) {
    Mat more = p.scratch.mat(dt, T, s.dim);
    Compressor::backward(p, s.compressor(), w.compressor, {sv.plan, x}, sv.compressor, dkv.row_block(T, r.entries),
                         more, g.compressor);
    ops::add(p.exec, more, d.dx);
  }
}

}  // namespace birkhoff::layers
