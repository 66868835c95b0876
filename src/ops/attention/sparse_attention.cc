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

void check_operands(const SparseAttentionShape& s, CMat q, const KeyRows& k, CIndexMat keys) {
  BK_CHECK(s.heads > 0 && s.kv_heads > 0 && s.qk_dim > 0 && s.v_dim > 0);
  BK_CHECK_EQ(s.heads % s.kv_heads, 0);
  BK_CHECK(s.scale > 1e-20f && s.scale < 1e6f);  // the sign and size that masked scores are made for
  check_shape(q, q.rows, s.heads * s.qk_dim);
  check_rows(k, k.rows, s.kv_heads * s.qk_dim);
  BK_CHECK(k.dtype == q.dtype);
  BK_CHECK_EQ(keys.rows, q.rows);
}

void check_input(const SparseAttentionShape& s, const SparseAttentionInput& in) {
  check_operands(s, in.q, in.k, in.keys);
  check_rows(in.v, in.k.rows, s.kv_heads * s.v_dim);
  BK_CHECK(in.v.dtype == in.q.dtype);
  if (in.sink.cols == 0) return;
  check_shape(in.sink, 1, s.heads);
  BK_CHECK(in.sink.dtype == f32_t);
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

void sparse_attention_forward(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionInput& in, Mat o,
                              Mat lse, Arena& scratch) {
  check_input(s, in);
  const CMat q = in.q, sink = in.sink;
  const KeyRows &k = in.k, &v = in.v;
  const CIndexMat keys = in.keys;
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
    a.q = at(q, row, head * s.qk_dim), a.k = k.from(0, kv_head * s.qk_dim, s.qk_dim),
    a.v = v.from(0, kv_head * s.v_dim, s.v_dim);
    a.sink = sink.cols ? sink.f32() + head : nullptr;
    a.o = row_at(o, row, head * s.v_dim), a.o_stride = o.stride;
    if (with_lse) a.lse = lse.f32(row) + head, a.lse_stride = lse.stride;
    a.scratch = memory.take_bytes(
        static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.block.queries * a.heads, a.block.count)));
    run(a);
  });
}

namespace {

void check_sparse_backward(const SparseAttentionShape& s, const SparseAttentionSaved& f, CMat d_o,
                           const SparseAttentionGradients& d) {
  check_input(s, f.in);
  const int64_t T = f.in.q.rows;
  const DType dtype = f.in.q.dtype;
  const bool shared = d.dv.cols == 0;
  if (shared) BK_CHECK_LE(s.v_dim, s.qk_dim);
  check_shape(f.o, T, s.heads * s.v_dim);
  check_shape(d_o, T, s.heads * s.v_dim);
  check_shape(f.lse, T, s.heads);
  check_shape(d.dq, T, f.in.q.cols);
  check_shape(d.dk, f.in.k.rows, f.in.k.cols);
  if (!shared) check_shape(d.dv, f.in.v.rows, f.in.v.cols);
  BK_CHECK(f.lse.dtype == f32_t && f.o.dtype == dtype && d_o.dtype == dtype && d.dq.dtype == dtype &&
           d.dk.dtype == dtype);
  BK_CHECK(shared || d.dv.dtype == dtype);
  BK_CHECK_EQ(d.d_sink.cols, f.in.sink.cols);
}

// Backward, a panel of query blocks at a time: a block's queries leave two weights per query and listed key, p and ds;
// then every tile of keys adds up what the blocks of the panel ask of it, in their order.
class SparseBackwardSteps {
 public:
  SparseBackwardSteps(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionSaved& f, CMat d_o,
                      const SparseAttentionGradients& d, Arena& scratch)
      : s_(s),
        f_(f),
        d_o_(d_o),
        d_(d),
        blocks_(exec, f.in.keys, queries_per_block(s), f.in.k.rows, scratch),
        sums_(s, f.in.k.rows, scratch),
        delta_(scratch.mat(f32_t, f.in.q.rows, s.heads)),
        stored_(kernels::stored_bytes(blocks_.most_keys(), queries_per_block(s) * group_of(s))),
        panel_(blocks_per_panel(blocks_.size(), 2 * stored_ * s.kv_heads)),
        weights_(scratch.take<std::byte>(2 * stored_ * s.kv_heads * panel_)) {}

  void run(const Exec& exec) const {
    sums_.clear(exec);
    for (int64_t first = 0; first < blocks_.size(); first += panel_) {
      const int64_t count = std::min(panel_, blocks_.size() - first);
      exec.parallel_for(count * s_.kv_heads, [&](int64_t i) { query_step(first + i / s_.kv_heads, i % s_.kv_heads); });
      exec.parallel_for(sums_.tasks(), [&](int64_t task) { key_step(task, first, first + count); });
    }
    exec.parallel_for(sums_.tasks(), [&](int64_t task) { store_keys(task); });
    if (f_.in.sink.cols) add_sink_gradient(exec, f_.in.sink, f_.lse, delta_, d_.d_sink);
  }

 private:
  bool f32() const { return f_.in.q.dtype == f32_t; }
  std::byte* p_of(int64_t block, int64_t kv_head) const {
    return weights_ + 2 * stored_ * (block % panel_ * s_.kv_heads + kv_head);
  }
  std::byte* ds_of(int64_t block, int64_t kv_head) const { return p_of(block, kv_head) + stored_; }

  void query_step(int64_t block, int64_t kv_head) const {
    const auto& kernel = kernels::sparse_backward_kernels();
    const SparseAttentionInput& in = f_.in;
    const int64_t group = group_of(s_), row = blocks_.first_query(block), head = kv_head * group;
    WorkerScratch memory;
    kernels::SparseBackward a{};
    a.block = blocks_[block];
    a.heads = group, a.qk_dim = s_.qk_dim, a.v_dim = s_.v_dim, a.scale = s_.scale;
    a.q = at(in.q, row, head * s_.qk_dim), a.k = in.k.from(0, kv_head * s_.qk_dim, s_.qk_dim);
    a.v = in.v.from(0, kv_head * s_.v_dim, s_.v_dim);
    a.o = at(f_.o, row, head * s_.v_dim), a.d_o = at(d_o_, row, head * s_.v_dim);
    a.lse = f_.lse.f32(row) + head, a.lse_stride = f_.lse.stride;
    a.dq = row_at(d_.dq, row, head * s_.qk_dim), a.dq_stride = d_.dq.stride;
    a.p = p_of(block, kv_head), a.ds = ds_of(block, kv_head);
    a.delta = delta_.f32(row) + head, a.delta_stride = delta_.stride;
    a.scratch = memory.take_bytes(
        static_cast<size_t>(kernel.scratch_bytes(s_.qk_dim, s_.v_dim, a.block.queries * group, a.block.count)));
    (f32() ? kernel.backward_f32 : kernel.backward_bf16)(a);
  }

  // Keys of tile `task` += what query blocks [first_block, end_block) ask of them.
  void key_step(int64_t task, int64_t first_block, int64_t end_block) const {
    const auto& kernel = kernels::sparse_backward_kernels();
    const auto add = f32() ? kernel.key_gradient_f32 : kernel.key_gradient_bf16;
    const int64_t group = group_of(s_), kv_head = sums_.head(task), key = sums_.first_key(task);
    WorkerScratch memory;
    void* inner = memory.take_bytes(
        static_cast<size_t>(kernel.key_gradient_bytes(std::max(s_.qk_dim, s_.v_dim), queries_per_block(s_) * group)));
    for (int64_t b = first_block; b < end_block; ++b) {
      const int64_t row = blocks_.first_query(b), begin = blocks_.lower_bound(b, key),
                    end = blocks_.lower_bound(b, sums_.end_key(task));
      if (begin == end) continue;
      const kernels::KeyBlock block = blocks_[b];
      const int64_t columns = block.queries * group;
      const AttentionRows q = at(f_.in.q, row, kv_head * group * s_.qk_dim),
                          g = at(d_o_, row, kv_head * group * s_.v_dim);
      const kernels::Columns of_q{q.data, columns, group, q.stride, s_.qk_dim},
          of_o{g.data, columns, group, g.stride, s_.v_dim};
      add({block, begin, end, ds_of(b, kv_head), of_q, s_.qk_dim, key, sums_.dk(task), inner});
      add({block, begin, end, p_of(b, kv_head), of_o, s_.v_dim, key, sums_.dv(task), inner});
    }
  }

  void store_keys(int64_t task) const {
    const auto& kernel = kernels::sparse_backward_kernels();
    const auto store = f32() ? kernel.store_f32 : kernel.store_bf16;
    const bool shared = d_.dv.cols == 0;
    const int64_t h = sums_.head(task), key = sums_.first_key(task);
    for (int64_t r = 0; r < sums_.end_key(task) - key; ++r) {
      store(sums_.dk(task, r), s_.qk_dim, s_.scale, sums_.dv(task, r), shared ? s_.v_dim : 0,
            row_at(d_.dk, key + r, h * s_.qk_dim));
      if (!shared) store(sums_.dv(task, r), s_.v_dim, 1.f, nullptr, 0, row_at(d_.dv, key + r, h * s_.v_dim));
    }
  }

  const SparseAttentionShape& s_;
  const SparseAttentionSaved& f_;
  CMat d_o_;
  const SparseAttentionGradients& d_;
  KeyBlocks blocks_;
  KeySums sums_;
  Mat delta_;
  int64_t stored_, panel_;  // bytes of p, as of ds, of one block and kv head; blocks whose weights are held at a time
  std::byte* weights_;
};

}  // namespace

void sparse_attention_backward(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionSaved& f, CMat d_o,
                               const SparseAttentionGradients& d, Arena& scratch) {
  check_sparse_backward(s, f, d_o, d);
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const SparseBackwardSteps steps(exec, s, f, d_o, d, scratch);
  if (!exec.dry()) steps.run(exec);
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
