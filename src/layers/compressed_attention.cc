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

void rotate(const Exec& exec, const Attn::Spec& s, const ops::RopeTable& rope, const TokenContext& ctx, Mat x,
            int64_t heads, bool inverse = false) {
  ops::rope_apply(exec, rope, ops::RopeLayout::interleaved, ctx.position, x, s.head_dim - s.rope, heads, s.head_dim,
                  inverse);
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
void shift_window(const Exec& exec, const Attn::Spec& s, Mat kv, int64_t filled, Arena& scratch) {
  Arena::Scope scope(scratch);
  Mat copy = scratch.mat(kv.dtype, filled, kv.cols);
  ops::copy(exec, kv.row_block(s.window - filled, filled), copy);
  ops::copy(exec, copy, kv.row_block(s.window - 1 - filled, filled));
}

// Which rows of saved.kv queries first .. first + count - 1 see.
IndexMat list_keys(const Exec& exec, const Attn::Spec& s, const Attn::Saved& sv, const TokenContext& ctx, const Rows& r,
                   int64_t first, int64_t count, Arena& scratch) {
  const auto n = static_cast<size_t>(count), at = static_cast<size_t>(first);
  const int64_t most = s.indexed() ? sv.indexer.chosen.cols : r.entries;
  IndexMat keys = scratch.index_mat(count, std::min(s.window, r.first_entry) + most);
  CIndexMat entries(nullptr, count, 0);
  if (s.indexed()) entries = {sv.indexer.chosen.row(first), count, most};
  if (s.ratio && !s.indexed()) {
    IndexMat all = scratch.index_mat(count, most);
    ops::list_visible(exec, sv.plan.first.subspan(at, n), sv.plan.end.subspan(at, n), all);
    entries = all;
  }
  const std::span<const int32_t> reach = sv.cache ? std::span<const int32_t>(sv.first) : ctx.first_key;
  ops::list_window_and_entries(exec, reach.subspan(at, n), r.first_query + first, s.window, entries, r.first_entry,
                               keys);
  return keys;
}

// Keys of the new tokens and entries, and in front of them what a cache holds.
void fill_keys(const Exec& exec, const Attn::Spec& s, const Attn::Weights& w, const ops::RopeTable& rope,
               const TokenContext& ctx, CMat x, Attn::Saved& sv, const Rows& r, Arena& scratch) {
  Attn::Cache* cache = sv.cache;
  const bool apart = cache && r.tokens != 1;
  if (cache && !apart) shift_window(exec, s, cache->kv, r.before, scratch);
  if (apart) ops::copy(exec, cache->kv.row_block(s.window - r.before, r.before), sv.kv.row_block(0, r.before));
  const Mat fresh = sv.kv.row_block(r.first_query, r.tokens);
  ops::rms_norm_forward(exec, sv.a.col_block(s.q_lora, s.head_dim), w.kv_norm, s.eps, fresh, sv.kv_rstd);
  rotate(exec, s, rope, ctx, fresh, 1);
  if (s.ratio) {
    const Mat all = cache ? cache->kv.row_block(s.window, r.entries) : sv.kv.row_block(r.first_entry, r.entries);
    Compressor::forward(exec, s.compressor(), w.compressor, rope, sv.plan, x, sv.compressor,
                        all.row_block(r.entries - r.made, r.made), cache ? &cache->pending : nullptr, sv.cached,
                        scratch);
    if (apart) ops::copy(exec, all, sv.kv.row_block(r.first_entry, r.entries));
  }
  if (apart) {
    const int64_t kept = std::min(s.window, r.before + r.tokens);
    ops::copy(exec, sv.kv.row_block(r.first_entry - kept, kept), cache->kv.row_block(s.window - kept, kept));
  }
}

void plan_entries(const Exec& exec, const Attn::Spec& s, const TokenContext& ctx, Attn::Saved& sv) {
  if (exec.dry()) return;
  if (s.ratio && sv.cache) ops::plan_continuation(s.compressor().shape, sv.cached, sv.plan);
  if (s.ratio && !sv.cache) ops::plan_documents(s.compressor().shape, ctx.first_key, sv.plan);
  if (!sv.cache) return;
  const int64_t tokens = ctx.tokens(), filled = std::min(sv.cached, s.window - 1);
  std::fill(sv.first.begin(), sv.first.end(), static_cast<int32_t>(tokens == 1 ? s.window - 1 - filled : 0));
}

}  // namespace

Attn::Weights::Weights(const Spec& s)
    : in(s.q_lora + s.head_dim, s.dim),
      q_norm(nullptr, DType::f32, 1, s.q_lora),
      kv_norm(nullptr, DType::f32, 1, s.head_dim),
      q_b(s.heads * s.head_dim, s.q_lora),
      sinks(nullptr, DType::f32, 1, s.heads),
      o_a(nullptr, DType::f32, s.groups * s.o_lora, s.group_cols()),
      o_a_of(static_cast<size_t>(s.groups), Linear(s.o_lora, s.group_cols())),
      o_b(s.dim, s.groups * s.o_lora),
      q_lora(s.q_lora) {
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

void Attn::forward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                   const TokenContext& ctx, CMat x, Saved& sv, Mat y, Arena& scratch) {
  Arena::Scope scope(scratch);
  const int64_t T = x.rows;
  plan_entries(exec, s, ctx, sv);
  const Rows r = rows_of(s, sv, T);
  linear_forward(exec, w.in, x, sv.a);
  ops::rms_norm_forward(exec, sv.a.col_block(0, s.q_lora), w.q_norm, s.eps, sv.cq, sv.q_rstd);
  linear_forward(exec, w.q_b, sv.cq, sv.q_raw);
  ops::rms_norm_forward(exec, sv.q_raw.reshaped(T * s.heads, s.head_dim), CMat{}, s.eps,
                        sv.q.reshaped(T * s.heads, s.head_dim), sv.head_rstd);
  rotate(exec, s, rope, ctx, sv.q, s.heads);
  fill_keys(exec, s, w, rope, ctx, x, sv, r, scratch);
  if (s.indexed())
    EntryIndexer::forward(exec, s.indexer(), w.indexer, rope, ctx.position, sv.plan, x, sv.cq, sv.indexer,
                          sv.cache ? &sv.cache->index_pending : nullptr, sv.cached, scratch);
  const CMat keys = sv.kv.row_block(0, r.first_entry + r.entries);
  for (int64_t first = 0; first < T; first += kQueryBlock) {
    Arena::Scope block(scratch);
    const int64_t n = std::min(kQueryBlock, T - first);
    const IndexMat seen = list_keys(exec, s, sv, ctx, r, first, n, scratch);
    ops::sparse_attention_forward(exec, attention_shape(s), sv.q.row_block(first, n), keys, keys, seen, w.sinks,
                                  sv.o.row_block(first, n), sv.lse.data ? sv.lse.row_block(first, n) : Mat{}, scratch);
  }
  Mat turned = scratch.mat(x.dtype, T, sv.o.cols);
  ops::copy(exec, sv.o, turned);
  rotate(exec, s, rope, ctx, turned, s.heads, /*inverse=*/true);
  for (size_t g = 0; g < w.o_a_of.size(); ++g) {
    const auto i = static_cast<int64_t>(g);
    linear_forward(exec, w.o_a_of[g], turned.col_block(i * s.group_cols(), s.group_cols()),
                   sv.y.col_block(i * s.o_lora, s.o_lora));
  }
  linear_forward(exec, w.o_b, sv.y, y);
}

namespace {

// dy -> gradient of the heads' outputs before they are turned back.
void output_backward(const Exec& exec, const Attn::Spec& s, const Attn::Weights& w, const ops::RopeTable& rope,
                     const TokenContext& ctx, const Attn::Saved& sv, CMat dy, Mat d_o, Attn::Weights& g,
                     Arena& scratch) {
  Arena::Scope scope(scratch);
  Mat d_groups = scratch.mat(dy.dtype, dy.rows, sv.y.cols), turned = scratch.mat(dy.dtype, dy.rows, sv.o.cols);
  linear_backward(exec, w.o_b, sv.y, dy, d_groups, g.o_b, scratch);
  ops::copy(exec, sv.o, turned);
  rotate(exec, s, rope, ctx, turned, s.heads, /*inverse=*/true);
  for (size_t k = 0; k < w.o_a_of.size(); ++k) {
    const int64_t in = static_cast<int64_t>(k) * s.group_cols(), out = static_cast<int64_t>(k) * s.o_lora;
    linear_backward(exec, w.o_a_of[k], turned.col_block(in, s.group_cols()), d_groups.col_block(out, s.o_lora),
                    d_o.col_block(in, s.group_cols()), g.o_a_of[k], scratch);
  }
  rotate(exec, s, rope, ctx, d_o, s.heads);
}

void indexer_backward(const Exec& exec, const Attn::Spec& s, const Attn::Weights& w, const ops::RopeTable& rope,
                      const TokenContext& ctx, CMat x, const Attn::Saved& sv, const Rows& r, Attn::Weights& g,
                      IndexerLoss& kl, Arena& scratch) {
  Arena::Scope scope(scratch);
  Mat target = scratch.mat(f32_t, x.rows, sv.indexer.chosen.cols);
  ops::attention_target(exec, attention_shape(s), sv.q, sv.kv.row_block(r.first_entry, r.entries), sv.lse,
                        sv.indexer.chosen, target, scratch);
  EntryIndexer::backward(exec, s.indexer(), w.indexer, rope, ctx.position, sv.plan, x, sv.cq, sv.indexer, target,
                         g.indexer, kl, scratch);
}

}  // namespace

void Attn::backward(const Exec& exec, const Spec& s, const Weights& w, const ops::RopeTable& rope,
                    const TokenContext& ctx, CMat x, const Saved& sv, CMat dy, Mat dx, Weights& g, IndexerLoss& kl,
                    Arena& scratch) {
  BK_CHECK(!sv.cache);
  Arena::Scope scope(scratch);
  const int64_t T = x.rows;
  const DType dt = x.dtype;
  const Rows r = rows_of(s, sv, T);
  if (sv.indexer.chosen.cols && kl.scale != 0) indexer_backward(exec, s, w, rope, ctx, x, sv, r, g, kl, scratch);

  Mat da = scratch.mat(dt, T, s.q_lora + s.head_dim), dq = scratch.mat(dt, T, sv.q.cols),
      dkv = scratch.mat(dt, T + r.entries, s.head_dim);
  {
    Arena::Scope inner(scratch);
    Mat d_o = scratch.mat(dt, T, sv.o.cols);
    output_backward(exec, s, w, rope, ctx, sv, dy, d_o, g, scratch);
    const CMat keys = sv.kv.row_block(0, T + r.entries);
    const IndexMat seen = list_keys(exec, s, sv, ctx, r, 0, T, scratch);
    ops::sparse_attention_backward(exec, attention_shape(s), {sv.q, keys, keys, seen, w.sinks, sv.o, sv.lse}, d_o, dq,
                                   dkv, Mat{}, g.sinks, scratch);
  }
  const Mat d_rows = dkv.row_block(0, T);
  rotate(exec, s, rope, ctx, d_rows, 1, /*inverse=*/true);
  ops::rms_norm_backward(exec, sv.a.col_block(s.q_lora, s.head_dim), w.kv_norm, sv.kv_rstd, d_rows,
                         da.col_block(s.q_lora, s.head_dim), g.kv_norm, scratch);
  rotate(exec, s, rope, ctx, dq, s.heads, /*inverse=*/true);
  const Mat d_heads = dq.reshaped(T * s.heads, s.head_dim);
  ops::rms_norm_backward(exec, sv.q_raw.reshaped(T * s.heads, s.head_dim), CMat{}, sv.head_rstd, d_heads, d_heads,
                         Mat{}, scratch);
  Mat dcq = scratch.mat(dt, T, s.q_lora);
  linear_backward(exec, w.q_b, sv.cq, dq, dcq, g.q_b, scratch);
  ops::rms_norm_backward(exec, sv.a.col_block(0, s.q_lora), w.q_norm, sv.q_rstd, dcq, da.col_block(0, s.q_lora),
                         g.q_norm, scratch);
  linear_backward(exec, w.in, x, da, dx, g.in, scratch);
  if (s.ratio) {
    Mat more = scratch.mat(dt, T, s.dim);
    Compressor::backward(exec, s.compressor(), w.compressor, rope, sv.plan, x, sv.compressor,
                         dkv.row_block(T, r.entries), more, g.compressor, scratch);
    ops::add(exec, more, dx);
  }
}

}  // namespace birkhoff::layers
