#include "ops/attention/sparse_attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/key_block.h"
#include "ops/attention/key_blocks.h"

namespace birkhoff::ops {
namespace {

using kernels::AttentionRows;

// Heads of one query that a forward task takes on, where a query alone fills a block: all, so that their keys are
// gathered once, unless that leaves too few tasks, as in a decoding step. It does not change a result.
int64_t heads_per_task(int64_t group, int64_t pieces) { return pieces >= 16 ? group : std::min<int64_t>(group, 16); }

int64_t group_of(const SparseAttentionShape& s) { return s.heads / s.kv_heads; }
int64_t queries_per_block(const SparseAttentionShape& s) {
  return std::clamp<int64_t>(16 / group_of(s), 1, kernels::kMostQueries);
}

AttentionRows at(CMat m, int64_t row, int64_t col) {
  const CMat block = m.row_block(row, m.rows - row).col_block(col, m.cols - col);
  return {block.data, m.stride};
}
void* row_at(Mat m, int64_t row, int64_t col) {
  return m.row_block(row, m.rows - row).col_block(col, m.cols - col).data;
}

void check_operands(const SparseAttentionShape& s, CMat q, CMat k, CIndexMat keys) {
  BK_CHECK(s.heads > 0 && s.kv_heads > 0 && s.qk_dim > 0 && s.v_dim > 0);
  BK_CHECK_EQ(s.heads % s.kv_heads, 0);
  BK_CHECK(s.scale > 1e-20f && s.scale < 1e6f);  // the sign and size that masked scores are made for
  check_shape(q, q.rows, s.heads * s.qk_dim);
  check_shape(k, k.rows, s.kv_heads * s.qk_dim);
  BK_CHECK(k.dtype == q.dtype);
  BK_CHECK_EQ(keys.rows, q.rows);
}

void check_values(const SparseAttentionShape& s, CMat q, CMat k, CMat v, CMat sink) {
  check_shape(v, k.rows, s.kv_heads * s.v_dim);
  BK_CHECK(v.dtype == q.dtype);
  if (sink.cols == 0) return;
  check_shape(sink, 1, s.heads);
  BK_CHECK(sink.dtype == f32_t);
}

// Consecutive pieces of work in tasks that outweigh handing them out; the cut depends on the shape only.
template <class F>
void for_each_piece(const Exec& exec, int64_t pieces, int64_t flops_of_one, F&& f) {
  const int64_t step = std::clamp<int64_t>(500000 / std::max<int64_t>(flops_of_one, 1), 1, 16);
  exec.parallel_for((pieces + step - 1) / step, [&](int64_t task) {
    for (int64_t i = task * step; i < std::min(pieces, (task + 1) * step); ++i) f(i);
  });
}

// dk and dv: fp32 sums [kv_heads, tiles of kKeyTile keys, width], over the blocks in their order.
class KeySums {
 public:
  KeySums(const SparseAttentionShape& s, int64_t key_rows, Arena& scratch)
      : kv_heads_(s.kv_heads),
        rows_(key_rows),
        tiles_((key_rows + kernels::kKeyTile - 1) / kernels::kKeyTile),
        qk_((s.qk_dim + 15) / 16 * 16),
        vd_((s.v_dim + 15) / 16 * 16),
        dk_(scratch.take<float>(kv_heads_ * tiles_ * kernels::kKeyTile * qk_)),
        dv_(scratch.take<float>(kv_heads_ * tiles_ * kernels::kKeyTile * vd_)) {}
  void clear(const Exec& exec) const {
    exec.parallel_for(tasks(), [&](int64_t i) {
      std::fill_n(dk(i), kernels::kKeyTile * qk_, 0.f);
      std::fill_n(dv(i), kernels::kKeyTile * vd_, 0.f);
    });
  }
  int64_t tasks() const { return kv_heads_ * tiles_; }
  int64_t head(int64_t task) const { return task / tiles_; }
  int64_t first_key(int64_t task) const { return task % tiles_ * kernels::kKeyTile; }
  int64_t end_key(int64_t task) const { return std::min(rows_, first_key(task) + kernels::kKeyTile); }
  float* dk(int64_t task, int64_t row = 0) const { return dk_ + (task * kernels::kKeyTile + row) * qk_; }
  float* dv(int64_t task, int64_t row = 0) const { return dv_ + (task * kernels::kKeyTile + row) * vd_; }

 private:
  int64_t kv_heads_, rows_, tiles_, qk_, vd_;
  float *dk_, *dv_;
};

// d_sink += -sum_t exp(sink - lse) delta (models.md G.12).
void add_sink_gradient(const Exec& exec, CMat sink, CMat lse, CMat delta, Mat d_sink) {
  exec.parallel_for(sink.cols, [&](int64_t h) {
    double sum = 0;
    for (int64_t t = 0; t < lse.rows; ++t)
      sum += static_cast<double>(std::exp(sink.f32()[h] - lse.f32(t)[h]) * delta.f32(t)[h]);
    d_sink.f32()[h] -= static_cast<float>(sum);
  });
}

}  // namespace

void sparse_attention_forward(const Exec& exec, const SparseAttentionShape& s, CMat q, CMat k, CMat v, CIndexMat keys,
                              CMat sink, Mat o, Mat lse, Arena& scratch) {
  check_operands(s, q, k, keys);
  check_values(s, q, k, v, sink);
  check_shape(o, q.rows, s.heads * s.v_dim);
  BK_CHECK(o.dtype == q.dtype);
  const bool with_lse = lse.cols != 0;
  if (with_lse) {
    check_shape(lse, q.rows, s.heads);
    BK_CHECK(lse.dtype == f32_t);
  }
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const KeyBlocks blocks(exec, keys, queries_per_block(s), k.rows, scratch);
  if (exec.dry() || q.rows == 0) return;
  if (sink.cols == 0)
    for (int64_t t = 0; t < keys.rows; ++t) BK_CHECK(keys.cols > 0 && keys.row(t)[0] >= 0);
  const int64_t group = group_of(s), chunk = heads_per_task(group, blocks.size() * s.kv_heads),
                chunks = (group + chunk - 1) / chunk;
  const auto& kernel = kernels::sparse_attention_kernels();
  const auto run = q.dtype == f32_t ? kernel.forward_f32 : kernel.forward_bf16;
  const int64_t flops = 2 * blocks.most_keys() * queries_per_block(s) * chunk * (s.qk_dim + s.v_dim);
  for_each_piece(exec, blocks.size() * s.kv_heads * chunks, flops, [&](int64_t piece) {
    const int64_t block = piece / (s.kv_heads * chunks), kv_head = piece / chunks % s.kv_heads,
                  row = blocks.first_query(block);
    const int64_t in_group = piece % chunks * chunk, head = kv_head * group + in_group;
    WorkerScratch memory;
    kernels::SparseForward a{};
    a.block = blocks[block];
    a.heads = std::min(chunk, group - in_group), a.qk_dim = s.qk_dim, a.v_dim = s.v_dim, a.scale = s.scale;
    a.q = at(q, row, head * s.qk_dim), a.k = at(k, 0, kv_head * s.qk_dim), a.v = at(v, 0, kv_head * s.v_dim);
    a.sink = sink.cols ? sink.f32() + head : nullptr;
    a.o = row_at(o, row, head * s.v_dim), a.o_stride = o.stride;
    if (with_lse) a.lse = lse.f32(row) + head, a.lse_stride = lse.stride;
    a.scratch = memory.take_bytes(
        static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.block.queries * a.heads, a.block.count)));
    run(a);
  });
}

void sparse_attention_backward(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionSaved& f, CMat d_o,
                               Mat dq, Mat dk, Mat dv, Mat d_sink, Arena& scratch) {
  check_operands(s, f.q, f.k, f.keys);
  check_values(s, f.q, f.k, f.v, f.sink);
  const int64_t T = f.q.rows, group = group_of(s), per_block = queries_per_block(s);
  const DType dtype = f.q.dtype;
  const bool shared = dv.cols == 0;
  if (shared) BK_CHECK_LE(s.v_dim, s.qk_dim);
  check_shape(f.o, T, s.heads * s.v_dim);
  check_shape(d_o, T, s.heads * s.v_dim);
  check_shape(f.lse, T, s.heads);
  check_shape(dq, T, f.q.cols);
  check_shape(dk, f.k.rows, f.k.cols);
  if (!shared) check_shape(dv, f.v.rows, f.v.cols);
  BK_CHECK(f.lse.dtype == f32_t && f.o.dtype == dtype && d_o.dtype == dtype && dq.dtype == dtype && dk.dtype == dtype);
  BK_CHECK(shared || dv.dtype == dtype);
  BK_CHECK_EQ(d_sink.cols, f.sink.cols);
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const KeyBlocks blocks(exec, f.keys, per_block, f.k.rows, scratch);
  const KeySums sums(s, f.k.rows, scratch);
  const Mat delta = scratch.mat(f32_t, T, s.heads);
  const int64_t stored = kernels::stored_bytes(blocks.most_keys(), per_block * group);
  const int64_t panel = blocks_per_panel(blocks.size(), 2 * stored * s.kv_heads);
  std::byte* weights = scratch.take<std::byte>(2 * stored * s.kv_heads * panel);
  if (exec.dry()) return;

  const auto& kernel = kernels::sparse_backward_kernels();
  const bool f32 = dtype == f32_t;
  const auto p_of = [&](int64_t block, int64_t kv_head) {
    return weights + 2 * stored * (block % panel * s.kv_heads + kv_head);
  };
  const auto query_step = [&](int64_t block, int64_t kv_head) {
    const int64_t row = blocks.first_query(block), head = kv_head * group;
    WorkerScratch memory;
    kernels::SparseBackward a{};
    a.block = blocks[block];
    a.heads = group, a.qk_dim = s.qk_dim, a.v_dim = s.v_dim, a.scale = s.scale;
    a.q = at(f.q, row, head * s.qk_dim), a.k = at(f.k, 0, kv_head * s.qk_dim), a.v = at(f.v, 0, kv_head * s.v_dim);
    a.o = at(f.o, row, head * s.v_dim), a.d_o = at(d_o, row, head * s.v_dim);
    a.lse = f.lse.f32(row) + head, a.lse_stride = f.lse.stride;
    a.dq = row_at(dq, row, head * s.qk_dim), a.dq_stride = dq.stride;
    a.p = p_of(block, kv_head), a.ds = p_of(block, kv_head) + stored;
    a.delta = delta.f32(row) + head, a.delta_stride = delta.stride;
    a.scratch = memory.take_bytes(
        static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.block.queries * group, a.block.count)));
    (f32 ? kernel.backward_f32 : kernel.backward_bf16)(a);
  };
  const auto key_step = [&](int64_t task, int64_t first_block, int64_t end_block) {
    const int64_t kv_head = sums.head(task), key = sums.first_key(task);
    WorkerScratch memory;
    void* inner = memory.take_bytes(
        static_cast<size_t>(kernel.key_gradient_bytes(std::max(s.qk_dim, s.v_dim), per_block * group)));
    for (int64_t b = first_block; b < end_block; ++b) {
      const int64_t row = blocks.first_query(b), begin = blocks.lower_bound(b, key),
                    end = blocks.lower_bound(b, sums.end_key(task));
      if (begin == end) continue;
      const kernels::KeyBlock block = blocks[b];
      const int64_t columns = block.queries * group;
      const auto add = f32 ? kernel.key_gradient_f32 : kernel.key_gradient_bf16;
      const AttentionRows q = at(f.q, row, kv_head * group * s.qk_dim), g = at(d_o, row, kv_head * group * s.v_dim);
      add({block,
           begin,
           end,
           p_of(b, kv_head) + stored,
           {q.data, columns, group, q.stride, s.qk_dim},
           s.qk_dim,
           key,
           sums.dk(task),
           inner});
      add({block,
           begin,
           end,
           p_of(b, kv_head),
           {g.data, columns, group, g.stride, s.v_dim},
           s.v_dim,
           key,
           sums.dv(task),
           inner});
    }
  };
  sums.clear(exec);
  for (int64_t first = 0; first < blocks.size(); first += panel) {
    const int64_t count = std::min(panel, blocks.size() - first);
    exec.parallel_for(count * s.kv_heads, [&](int64_t i) { query_step(first + i / s.kv_heads, i % s.kv_heads); });
    exec.parallel_for(sums.tasks(), [&](int64_t task) { key_step(task, first, first + count); });
  }
  const auto store = f32 ? kernel.store_f32 : kernel.store_bf16;
  exec.parallel_for(sums.tasks(), [&](int64_t task) {
    const int64_t h = sums.head(task), key = sums.first_key(task);
    for (int64_t r = 0; r < sums.end_key(task) - key; ++r) {
      store(sums.dk(task, r), s.qk_dim, s.scale, sums.dv(task, r), shared ? s.v_dim : 0,
            row_at(dk, key + r, h * s.qk_dim));
      if (!shared) store(sums.dv(task, r), s.v_dim, 1.f, nullptr, 0, row_at(dv, key + r, h * s.v_dim));
    }
  });
  if (f.sink.cols) add_sink_gradient(exec, f.sink, f.lse, delta, d_sink);
}

void attention_target(const Exec& exec, const SparseAttentionShape& s, CMat q, CMat k, CMat lse, CIndexMat subset,
                      Mat p, Arena& scratch) {
  check_operands(s, q, k, subset);
  check_shape(lse, q.rows, s.heads);
  check_shape(p, subset.rows, subset.cols);
  BK_CHECK(lse.dtype == f32_t && p.dtype == f32_t);
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const int64_t group = group_of(s);
  const KeyBlocks blocks(exec, subset, queries_per_block(s), k.rows, scratch);
  if (exec.dry()) return;
  const auto& kernel = kernels::sparse_attention_kernels();
  exec.parallel_for(blocks.size(), [&](int64_t index) {
    const kernels::KeyBlock block = blocks[index];
    const int64_t row = blocks.first_query(index);
    WorkerScratch memory;
    float* sum = memory.take<float>(block.count * kernels::kMostQueries);
    std::fill_n(sum, block.count * kernels::kMostQueries, 0.f);
    void* inner =
        memory.take_bytes(static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, 0, block.queries * group, block.count)));
    for (int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
      const int64_t head = kv_head * group;
      const kernels::SparseTarget a{block,
                                    at(q, row, head * s.qk_dim),
                                    at(k, 0, kv_head * s.qk_dim),
                                    lse.f32(row) + head,
                                    lse.stride,
                                    sum,
                                    group,
                                    s.qk_dim,
                                    s.scale,
                                    inner};
      (q.dtype == f32_t ? kernel.target_f32 : kernel.target_bf16)(a);
    }
    for (int64_t i = 0; i < block.queries; ++i) {
      float* out = p.f32(row + i);
      int64_t n = 0;
      double total = 0;
      for (int64_t u = 0; u < block.count; ++u) {
        if (block.seen && !(block.seen[u] >> i & 1)) continue;
        out[n++] = sum[u * kernels::kMostQueries + i];
        total += static_cast<double>(out[n - 1]);
      }
      std::fill_n(out + n, p.cols - n, 0.f);
      for (int64_t j = 0; j < n && total > 0; ++j) out[j] = static_cast<float>(static_cast<double>(out[j]) / total);
    }
  });
}

}  // namespace birkhoff::ops
