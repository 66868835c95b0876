#include "ops/attention/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/attention/attention.h"

namespace birkhoff::ops {
namespace {

using kernels::AttentionRows;

// Consecutive query rows that see keys from the same one on: the unit within which all work is done, so that neither
// other documents in the row nor the place of a document can change a result.
struct Stretch {
  int64_t begin, end;  // query rows
  int64_t first_key;
};

std::vector<Stretch> find_stretches(std::span<const int32_t> first_key, int64_t begin, int64_t end) {
  std::vector<Stretch> v;
  for (int64_t t = begin; t < end; ++t) {
    if (v.empty() || first_key[static_cast<size_t>(t)] != v.back().first_key)
      v.push_back({t, t, first_key[static_cast<size_t>(t)]});
    v.back().end = t + 1;
  }
  return v;
}

void check_attention_shape(const AttentionShape& s, CMat q, const KeyRows& k, const KeyRows& v,
                           std::span<const int32_t> first_key) {
  BK_CHECK(s.heads > 0 && s.kv_heads > 0 && s.qk_dim > 0 && s.v_dim > 0);
  BK_CHECK_EQ(s.heads % s.kv_heads, 0);
  BK_CHECK(s.scale > 1e-20f && s.scale < 1e6f);  // the sign and size that masked scores are made for
  BK_CHECK_LE(q.rows, k.rows);
  check_shape(q, q.rows, s.heads * s.qk_dim);
  check_rows(k, k.rows, s.kv_heads * s.qk_dim);
  check_rows(v, k.rows, s.kv_heads * s.v_dim);
  BK_CHECK(k.dtype == q.dtype && v.dtype == q.dtype);
  BK_CHECK_EQ(static_cast<int64_t>(first_key.size()), q.rows);
}

// Rows [first, rows) of columns [col, cols) as the kernels take them.
AttentionRows from(CMat m, int64_t first, int64_t col) {
  const CMat block = m.row_block(first, m.rows - first).col_block(col, m.cols - col);
  return {block.data, m.stride};
}
void* into(Mat m, int64_t first, int64_t col) {
  return m.row_block(first, m.rows - first).col_block(col, m.cols - col).data;
}

struct ForwardTask {
  const AttentionText* text;
  Stretch stretch;
  int64_t kv_head, col_begin, col_end;
};

// Every kv head of every stretch, long ones in pieces: K and V are repacked per piece, so pieces are as large as the
// number of workers one may expect allows. Pieces never change a result.
void add_forward_tasks(const AttentionShape& s, const AttentionText& text, std::vector<ForwardTask>& tasks) {
  const int64_t group = s.heads / s.kv_heads, rows = text.q.rows;
  const int64_t piece = std::clamp<int64_t>((rows * s.heads / 16 + 63) / 64 * 64, 64, 1024);
  for (const Stretch& stretch : find_stretches(text.first_key, 0, rows)) {
    const int64_t columns = (stretch.end - stretch.begin) * group;
    for (int64_t h = 0; h < s.kv_heads; ++h)
      for (int64_t c = 0; c < columns; c += piece)
        tasks.push_back({&text, stretch, h, c, std::min(c + piece, columns)});
  }
}

// dk and dv of one kv head over one segment, in fp32 until every query has added its share.
struct KeyGradients {
  int64_t rows, qk, vd;  // rows + 64: a stretch rounds its keys up
  float *dk, *dv;
  KeyGradients(WorkerScratch& scratch, int64_t n, int64_t qk_dim, int64_t v_dim)
      : rows(n),
        qk((qk_dim + 15) / 16 * 16),
        vd((v_dim + 15) / 16 * 16),
        dk(scratch.take<float>((n + 64) * qk)),
        dv(scratch.take<float>((n + 64) * vd)) {
    std::fill_n(dk, (n + 64) * qk, 0.f);
    std::fill_n(dv, (n + 64) * vd, 0.f);
  }
};

}  // namespace

namespace {

void check_text(const AttentionShape& s, const AttentionText& t) {
  check_attention_shape(s, t.q, t.k, t.v, t.first_key);
  check_shape(t.o, t.q.rows, s.heads * s.v_dim);
  BK_CHECK(t.o.dtype == t.q.dtype);
  if (t.lse.cols == 0) return;
  check_shape(t.lse, t.q.rows, s.heads);
  BK_CHECK(t.lse.dtype == f32_t);
}

void check_first_keys(const AttentionText& t) {
  for (int64_t i = 0; i < t.q.rows; ++i) {
    const int32_t first = t.first_key[static_cast<size_t>(i)];
    BK_CHECK(first >= 0 && first <= t.k.rows - t.q.rows + i);
  }
}

void run_forward(const AttentionShape& s, const ForwardTask& task) {
  const auto& kernel = kernels::attention_forward_kernels();
  const AttentionText& t = *task.text;
  const int64_t group = s.heads / s.kv_heads, row = task.stretch.begin, key = task.stretch.first_key,
                head = task.kv_head * group;
  WorkerScratch memory;
  kernels::AttentionForward a{};
  a.q = from(t.q, row, head * s.qk_dim);
  a.k = t.k.from(key, task.kv_head * s.qk_dim, s.qk_dim);
  a.v = t.v.from(key, task.kv_head * s.v_dim, s.v_dim);
  a.o = into(t.o, row, head * s.v_dim), a.o_stride = t.o.stride;
  if (t.lse.cols) a.lse = static_cast<float*>(into(t.lse, row, head)), a.lse_stride = t.lse.stride;
  a.heads = group, a.qk_dim = s.qk_dim, a.v_dim = s.v_dim, a.scale = s.scale;
  a.col_begin = task.col_begin, a.col_end = task.col_end;
  a.first_visible = t.k.rows - t.q.rows + row - key;
  a.scratch = memory.take_bytes(static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.col_end - a.col_begin)));
  (t.q.dtype == f32_t ? kernel.run_f32 : kernel.run_bf16)(a);
}

}  // namespace

void attention_forward(const Exec& exec, const AttentionShape& s, std::span<const AttentionText> texts) {
  for (const AttentionText& t : texts) check_text(s, t);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::attention);
  std::vector<ForwardTask> tasks;
  for (const AttentionText& t : texts) {
    check_first_keys(t);
    add_forward_tasks(s, t, tasks);
  }
  exec.parallel_for(static_cast<int64_t>(tasks.size()),
                    [&](int64_t i) { run_forward(s, tasks[static_cast<size_t>(i)]); });
}

void attention_forward(const Exec& exec, const AttentionShape& s, CMat q, const KeyRows& k, const KeyRows& v,
                       std::span<const int32_t> first_key, Mat o, Mat lse) {
  const AttentionText text{q, k, v, first_key, o, lse};
  attention_forward(exec, s, {&text, 1});
}

namespace {

void check_attention_backward(const AttentionShape& s, const AttentionSaved& f, CMat d_o, const AttentionGradients& d) {
  check_attention_shape(s, f.q, f.k, f.v, f.first_key);
  const int64_t T = f.q.rows;
  BK_CHECK_EQ(f.k.rows, T);
  check_shape(f.o, T, s.heads * s.v_dim);
  check_shape(d_o, T, s.heads * s.v_dim);
  check_shape(f.lse, T, s.heads);
  check_shape(d.dq, T, f.q.cols);
  check_shape(d.dk, T, f.k.cols);
  check_shape(d.dv, T, f.v.cols);
  BK_CHECK(f.lse.dtype == f32_t);
  for (DType t : {f.o.dtype, d_o.dtype, d.dq.dtype, d.dk.dtype, d.dv.dtype}) BK_CHECK(t == f.q.dtype);
}

// Row at which segment i begins, or ends segment i - 1.
int64_t segment_begin(const AttentionSaved& f, int64_t i) {
  return i < static_cast<int64_t>(f.segment_start.size()) ? f.segment_start[static_cast<size_t>(i)] : f.q.rows;
}

void check_segments(const AttentionSaved& f) {
  BK_CHECK(!f.segment_start.empty() && f.segment_start[0] == 0);
  for (int64_t i = 0; i < static_cast<int64_t>(f.segment_start.size()); ++i) {
    BK_CHECK_LE(segment_begin(f, i), segment_begin(f, i + 1));
    for (int64_t t = segment_begin(f, i); t < segment_begin(f, i + 1); ++t) {
      const int32_t first = f.first_key[static_cast<size_t>(t)];
      BK_CHECK(first >= segment_begin(f, i) && first <= t);
    }
  }
}

// One kv head of the segment of rows [begin, end).
void segment_backward(const AttentionShape& s, const AttentionSaved& f, CMat d_o, const AttentionGradients& d,
                      int64_t begin, int64_t end, int64_t kv_head) {
  const auto& kernel = kernels::attention_backward_kernels();
  const bool f32 = f.q.dtype == f32_t;
  const int64_t group = s.heads / s.kv_heads, head = kv_head * group;
  WorkerScratch memory;
  const KeyGradients sums(memory, end - begin, s.qk_dim, s.v_dim);
  for (const Stretch& stretch : find_stretches(f.first_key, begin, end)) {
    const int64_t row = stretch.begin, key = stretch.first_key;
    WorkerScratch inner;
    kernels::AttentionBackward a{};
    a.q = from(f.q, row, head * s.qk_dim);
    a.k = from(f.k, key, kv_head * s.qk_dim);
    a.v = from(f.v, key, kv_head * s.v_dim);
    a.o = from(f.o, row, head * s.v_dim);
    a.d_o = from(d_o, row, head * s.v_dim);
    a.lse = f.lse.f32(row) + head, a.lse_stride = f.lse.stride;
    a.dq = into(d.dq, row, head * s.qk_dim), a.dq_stride = d.dq.stride;
    a.dk = sums.dk + (key - begin) * sums.qk, a.dv = sums.dv + (key - begin) * sums.vd;
    a.heads = group, a.qk_dim = s.qk_dim, a.v_dim = s.v_dim, a.scale = s.scale;
    a.tokens = stretch.end - stretch.begin, a.first_visible = row - key;
    a.scratch =
        inner.take_bytes(static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.first_visible + a.tokens)));
    (f32 ? kernel.run_f32 : kernel.run_bf16)(a);
  }
  const auto store = f32 ? kernel.store_f32 : kernel.store_bf16;
  for (int64_t t = begin; t < end; ++t) {
    store(sums.dk + (t - begin) * sums.qk, s.qk_dim, s.scale, into(d.dk, t, kv_head * s.qk_dim));
    store(sums.dv + (t - begin) * sums.vd, s.v_dim, 1.f, into(d.dv, t, kv_head * s.v_dim));
  }
}

}  // namespace

void attention_backward(const Exec& exec, const AttentionShape& s, const AttentionSaved& f, CMat d_o,
                        const AttentionGradients& d) {
  check_attention_backward(s, f, d_o, d);
  if (exec.dry() || f.q.rows == 0) return;
  Exec::Span span(exec, Work::attention);
  check_segments(f);
  exec.parallel_for(static_cast<int64_t>(f.segment_start.size()) * s.kv_heads, [&](int64_t task) {
    const int64_t segment = task / s.kv_heads;
    segment_backward(s, f, d_o, d, segment_begin(f, segment), segment_begin(f, segment + 1), task % s.kv_heads);
  });
}

namespace {

constexpr int64_t kMlaRows = 64;

// Checks the latent kv and k_rope against the k and v that they expand to (or all their gradients), and calls
// f(first row, rows) for every block of rows.
template <class F>
void over_mla_rows(const Exec& exec, const MlaShape& s, CMat kv, CMat k_rope, CMat k, CMat v, F&& f) {
  check_shape(kv, k.rows, s.heads * (s.nope + s.v_dim));
  check_shape(k_rope, k.rows, s.rope);
  check_shape(k, k.rows, s.heads * (s.nope + s.rope));
  check_shape(v, k.rows, s.heads * s.v_dim);
  BK_CHECK(kv.dtype == k.dtype && k_rope.dtype == k.dtype && v.dtype == k.dtype);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::attention);
  exec.parallel_for((k.rows + kMlaRows - 1) / kMlaRows, [&](int64_t task) {
    const int64_t first = task * kMlaRows;
    f(first, std::min(kMlaRows, k.rows - first));
  });
}

}  // namespace

void mla_expand_kv(const Exec& exec, const MlaShape& s, CMat kv, CMat k_rope, Mat k, Mat v) {
  const auto& kernel = kernels::mla_kernels();
  over_mla_rows(exec, s, kv, k_rope, k, v, [&](int64_t first, int64_t rows) {
    const kernels::MlaExpand a{from(kv, first, 0),
                               from(k_rope, first, 0),
                               into(k, first, 0),
                               into(v, first, 0),
                               k.stride,
                               v.stride,
                               rows,
                               s.heads,
                               s.nope,
                               s.rope,
                               s.v_dim};
    (kv.dtype == f32_t ? kernel.expand_f32 : kernel.expand_bf16)(a);
  });
}

void mla_expand_kv_backward(const Exec& exec, const MlaShape& s, CMat dk, CMat dv, Mat dkv, Mat dk_rope) {
  const auto& kernel = kernels::mla_kernels();
  over_mla_rows(exec, s, dkv, dk_rope, dk, dv, [&](int64_t first, int64_t rows) {
    const kernels::MlaGather a{from(dk, first, 0),
                               from(dv, first, 0),
                               into(dkv, first, 0),
                               into(dk_rope, first, 0),
                               dkv.stride,
                               dk_rope.stride,
                               rows,
                               s.heads,
                               s.nope,
                               s.rope,
                               s.v_dim};
    (dk.dtype == f32_t ? kernel.gather_f32 : kernel.gather_bf16)(a);
  });
}

}  // namespace birkhoff::ops
