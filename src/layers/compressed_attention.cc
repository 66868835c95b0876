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

// What T queries meet: rows of tokens, of which theirs are rows first_query .., then compressed entries.
struct Keys {
  CMat kv;  // [first_entry + entries, head_dim]
  int64_t first_query, first_entry, entries;
  const ops::CompressorPlan& plan;
  CIndexMat chosen;                    // [T, ..] of the entries, where an indexer chooses
  std::span<const int32_t> first_row;  // [T] first row a query may see
};

// The cache's window one row up; then its last row is free.
void shift_window(const Pass& p, const Attn::Spec& s, Mat kv, int64_t filled) {
  Arena::Scope scope(p.scratch);
  Mat copy = p.scratch.mat(kv.dtype, filled, kv.cols);
  ops::copy(p.exec, kv.row_block(s.window - filled, filled), copy);
  ops::copy(p.exec, copy, kv.row_block(s.window - 1 - filled, filled));
}

// Which rows of keys.kv queries first .. first + count - 1 see.
IndexMat list_keys(const Pass& p, const Attn::Spec& s, const Keys& k, int64_t first, int64_t count) {
  const auto n = static_cast<size_t>(count), at = static_cast<size_t>(first);
  const int64_t most = s.indexed() ? k.chosen.cols : k.entries;
  IndexMat keys = p.scratch.index_mat(count, std::min(s.window, k.first_entry) + most);
  CIndexMat entries(nullptr, count, 0);
  if (s.indexed()) entries = {k.chosen.row(first), count, most};
  if (s.ratio && !s.indexed()) {
    IndexMat all = p.scratch.index_mat(count, most);
    ops::list_visible(p.exec, k.plan.first.subspan(at, n), k.plan.end.subspan(at, n), all);
    entries = all;
  }
  ops::list_window_and_entries(p.exec, k.first_row.subspan(at, n), k.first_query + first, s.window, entries,
                               k.first_entry, keys);
  return keys;
}

// q [T, heads*head_dim] -> o.
void attend(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, const Keys& keys, CMat q, Mat o, Mat lse) {
  for (int64_t first = 0; first < q.rows; first += kQueryBlock) {
    Arena::Scope block(p.scratch);
    const int64_t n = std::min(kQueryBlock, q.rows - first);
    const IndexMat seen = list_keys(p, s, keys, first, n);
    ops::sparse_attention_forward(p.exec, attention_shape(s), {q.row_block(first, n), keys.kv, keys.kv, seen, w.sinks},
                                  o.row_block(first, n), lse.data ? lse.row_block(first, n) : Mat{}, p.scratch);
  }
}

// Products and norms of all tokens, wherever their keys are.
void project(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, CMat x, Attn::Saved& sv) {
  const int64_t T = x.rows;
  linear_forward(p.exec, w.in, x, sv.a);
  ops::rms_norm_forward(p.exec, sv.a.col_block(0, s.q_lora), w.q_norm, s.eps, sv.cq, sv.q_rstd);
  linear_forward(p.exec, w.q_b, sv.cq, sv.q_raw);
  ops::rms_norm_forward(p.exec, sv.q_raw.reshaped(T * s.heads, s.head_dim), CMat{}, s.eps,
                        sv.q.reshaped(T * s.heads, s.head_dim), sv.head_rstd);
  rotate(p, s, sv.q, s.heads);
  const Mat rows = sv.kv.row_block(0, T);
  ops::rms_norm_forward(p.exec, sv.a.col_block(s.q_lora, s.head_dim), w.kv_norm, s.eps, rows, sv.kv_rstd);
  rotate(p, s, rows, 1);
  if (s.ratio) Compressor::project(p, w.compressor, x, sv.compressor.kz);
  if (s.indexed()) EntryIndexer::project(p, s.indexer(), w.indexer, x, sv.cq, sv.indexer);
}

// Of whole texts: what their queries meet.
Keys keys_of(const Attn::Spec& s, const Attn::Saved& sv, std::span<const int32_t> first_key) {
  const int64_t T = sv.q.rows, entries = s.ratio ? static_cast<int64_t>(sv.plan.windows.size()) : 0;
  return {sv.kv.row_block(0, T + entries), 0, T, entries, sv.plan, sv.indexer.chosen, first_key};
}

void attend_texts(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, Attn::Saved& sv) {
  if (s.ratio && !p.exec.dry()) ops::plan_documents(s.compressor().shape, p.ctx.first_key, sv.plan);
  const Keys keys = keys_of(s, sv, p.ctx.first_key);
  const auto entries = [&](const Mat& rows) { return rows.row_block(rows.rows - sv.q.rows / s.ratio, keys.entries); };
  if (s.ratio) Compressor::compress(p, s.compressor(), w.compressor, sv.plan, sv.compressor, entries(sv.kv));
  if (s.indexed()) {
    Compressor::compress(p, s.indexer().compressor(), w.indexer.compressor, sv.plan, sv.indexer.compressor,
                         entries(sv.indexer.keys));
    EntryIndexer::choose(p, s.indexer(), sv.plan,
                         {sv.indexer.q, sv.indexer.keys.row_block(0, keys.entries), sv.indexer.w}, sv.indexer.chosen);
  }
  attend(p, s, w, keys, sv.q, sv.o, sv.lse);
}

// The rows `kz` of a part's tokens complete entries behind the `past / ratio` of its text: the last rows of `entries`.
void continue_entries(const Pass& p, const Compressor::Spec& s, const Compressor::Weights& w,
                      const ops::CompressorPlan& plan, CMat kz, int64_t past, const Compressor::Cache& pending,
                      Mat entries) {
  Arena::Scope scope(p.scratch);
  Compressor::Saved saved = Compressor::reserve(p.scratch, s, entries.dtype, kz.rows, past);
  Compressor::continue_rows(p, s, kz, past, pending, saved.kz);
  const auto made = static_cast<int64_t>(plan.windows.size());
  Compressor::compress(p, s, w, plan, saved, entries.row_block(entries.rows - made, made));
}

// One new token is written behind the window where it lies; more are laid out apart, behind copies of what they can
// see. Returns the keys, the entries in their places.
Mat lay_out_keys(const Pass& p, const Attn::Spec& s, const Attn::Slot& slot, CMat rows, int64_t before,
                 int64_t entries) {
  if (rows.rows == 1) {
    shift_window(p, s, slot.kv, before);
    ops::copy(p.exec, rows, slot.kv.row_block(s.window - 1, 1));
    return slot.kv.row_block(0, s.window + entries);
  }
  const int64_t seen = before + rows.rows, kept = std::min(s.window, seen);
  const Mat kv = p.scratch.mat(rows.dtype, seen + entries, s.head_dim);
  ops::copy(p.exec, slot.kv.row_block(s.window - before, before), kv.row_block(0, before));
  ops::copy(p.exec, rows, kv.row_block(before, rows.rows));
  ops::copy(p.exec, slot.kv.row_block(s.window, entries), kv.row_block(seen, entries));
  ops::copy(p.exec, kv.row_block(seen - kept, kept), slot.kv.row_block(s.window - kept, kept));
  return kv;
}

void attend_part(const Pass& p, const Attn::Spec& s, const Attn::Weights& w, const CachedPart& part,
                 const Attn::Slot& slot, Attn::Saved& sv) {
  Arena::Scope scope(p.scratch);
  const int64_t T = part.tokens, before = std::min(part.past, s.window - 1),
                entries = s.ratio ? part.keys() / s.ratio : 0;
  const auto of_part = [&](const Mat& m) { return m.row_block(part.first, T); };
  ops::CompressorPlan plan;
  IndexMat chosen;
  if (s.ratio) {
    plan = ops::CompressorPlan::take(p.scratch, s.compressor().shape, part.past, T);
    if (!p.exec.dry()) ops::plan_continuation(s.compressor().shape, part.past, plan);
    continue_entries(p, s.compressor(), w.compressor, plan, of_part(sv.compressor.kz), part.past, slot.pending,
                     slot.kv.row_block(s.window, entries));
  }
  if (s.indexed()) {
    const Mat keys = slot.index_keys.row_block(0, entries);
    continue_entries(p, s.indexer().compressor(), w.indexer.compressor, plan, of_part(sv.indexer.compressor.kz),
                     part.past, slot.index_pending, keys);
    chosen = EntryIndexer::reserve_choice(p.scratch, s.indexer(), T, entries);
    EntryIndexer::choose(p, s.indexer(), plan, {of_part(sv.indexer.q), keys, of_part(sv.indexer.w)}, chosen);
  }
  const Mat kv = lay_out_keys(p, s, slot, of_part(sv.kv), before, entries);
  const int64_t first_entry = kv.rows - entries, first_query = first_entry - T;
  int32_t* first_row = p.scratch.take<int32_t>(T);
  if (!p.exec.dry()) std::fill_n(first_row, T, static_cast<int32_t>(first_query - before));
  attend(p, s, w, {kv, first_query, first_entry, entries, plan, chosen, {first_row, static_cast<size_t>(T)}},
         of_part(sv.q), of_part(sv.o), {});
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

Attn::Slot Attn::Slot::take(Arena& arena, const Spec& s, DType dtype, int64_t capacity) {
  Slot c;
  const int64_t entries = s.ratio ? capacity / s.ratio : 0;
  c.kv = arena.mat(dtype, s.window + entries, s.head_dim);
  if (s.ratio) c.pending = Compressor::Cache::take(arena, s.compressor());
  if (s.indexed()) {
    c.index_keys = arena.mat(dtype, entries, s.index_dim);
    c.index_pending = Compressor::Cache::take(arena, s.indexer().compressor());
  }
  return c;
}

Attn::Saved Attn::reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep) {
  Saved r;
  const bool cached = keep == Keep::cached;
  r.a = arena.mat(dtype, tokens, s.q_lora + s.head_dim);
  r.cq = arena.mat(dtype, tokens, s.q_lora);
  r.q_rstd = arena.mat(f32_t, tokens, 1);
  r.kv_rstd = arena.mat(f32_t, tokens, 1);
  r.head_rstd = arena.mat(f32_t, tokens * s.heads, 1);
  r.q = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.q_raw = keep == Keep::backward ? arena.mat(dtype, tokens, s.heads * s.head_dim) : r.q;
  r.o = arena.mat(dtype, tokens, s.heads * s.head_dim);
  r.y = arena.mat(dtype, tokens, s.groups * s.o_lora);
  if (keep == Keep::backward) r.lse = arena.mat(f32_t, tokens, s.heads);
  r.kv = arena.mat(dtype, tokens + (s.ratio && !cached ? tokens / s.ratio : 0), s.head_dim);
  if (s.indexed()) r.indexer = EntryIndexer::reserve(arena, s.indexer(), dtype, tokens, cached);
  if (s.ratio && cached) r.compressor.kz = Compressor::reserve_rows(arena, s.compressor(), tokens);
  if (s.ratio && !cached) {
    r.plan = ops::CompressorPlan::take(arena, s.compressor().shape, 0, tokens);
    r.compressor = Compressor::reserve(arena, s.compressor(), dtype, tokens, 0);
  }
  return r;
}

void Attn::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& sv, Mat y, const Cache* cache) {
  Arena::Scope scope(p.scratch);
  project(p, s, w, x, sv);
  if (!cache) attend_texts(p, s, w, sv);
  for (const CachedPart& part : p.ctx.parts) attend_part(p, s, w, part, cache->slots[part.slot], sv);
  Mat turned = p.scratch.mat(x.dtype, x.rows, sv.o.cols);
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
                      const Keys& r, Attn::Weights& g, IndexerLoss& kl) {
  Arena::Scope scope(p.scratch);
  Mat target = p.scratch.mat(f32_t, x.rows, sv.indexer.chosen.cols);
  ops::attention_target(p.exec, attention_shape(s), sv.q, sv.kv.row_block(r.first_entry, r.entries), sv.lse,
                        sv.indexer.chosen, target, p.scratch);
  EntryIndexer::backward(p, s.indexer(), w.indexer, {sv.plan, x, sv.cq}, sv.indexer, target, g.indexer, kl);
}

}  // namespace

void Attn::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& sv, Cotangents d, Weights& g,
                    IndexerLoss& kl) {
  Arena::Scope scope(p.scratch);
  const int64_t T = x.rows;
  const DType dt = x.dtype;
  const Keys r = keys_of(s, sv, p.ctx.first_key);
  if (sv.indexer.chosen.cols && kl.scale != 0) indexer_backward(p, s, w, x, sv, r, g, kl);

  Mat da = p.scratch.mat(dt, T, s.q_lora + s.head_dim), dq = p.scratch.mat(dt, T, sv.q.cols),
      dkv = p.scratch.mat(dt, T + r.entries, s.head_dim);
  {
    Arena::Scope inner(p.scratch);
    Mat d_o = p.scratch.mat(dt, T, sv.o.cols);
    output_backward(p, s, w, sv, d.dy, d_o, g);
    const IndexMat seen = list_keys(p, s, r, 0, T);
    ops::sparse_attention_backward(p.exec, attention_shape(s), {{sv.q, r.kv, r.kv, seen, w.sinks}, sv.o, sv.lse}, d_o,
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
