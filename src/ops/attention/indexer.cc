#include "ops/attention/indexer.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/attention/key_block.h"
#include "ops/attention/key_blocks.h"

namespace birkhoff::ops {
namespace {

using kernels::AttentionRows;
using kernels::kMostQueries;

constexpr int64_t kTile = 256;       // keys scored at a time
constexpr int64_t kPartKeys = 2048;  // of a task of a few queries

AttentionRows rows_at(CMat m, int64_t row) { return {m.row_block(row, m.rows - row).data, m.stride}; }

void check_operands(const IndexerShape& s, const IndexerTensors& in) {
  const auto& [q, k, w] = in;
  BK_CHECK(s.heads > 0 && s.dim > 0);
  check_shape(q, q.rows, s.heads * s.dim);
  check_rows(k, k.rows, s.dim);
  check_shape(w, q.rows, s.heads);
  BK_CHECK(k.dtype == q.dtype && w.dtype == f32_t);
}

// A key and its score as one number: larger is better, of equal scores the lower key, NaN below everything.
uint64_t ranked(float score, int32_t key) {
  score += 0.f;  // -0 and 0 are equal scores
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = score != score ? 0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{bits} << 32 | static_cast<uint32_t>(~key);
}
int32_t key_of(uint64_t r) { return static_cast<int32_t>(~static_cast<uint32_t>(r)); }

// The best `most` of the keys offered, in memory for twice as many.
class Best {
 public:
  Best(WorkerScratch& memory, int64_t most) : most_(most), ranks_(memory.take<uint64_t>(2 * most)) {}
  void offer(uint64_t r) {
    if (r <= floor_) return;
    ranks_[count_++] = r;
    if (count_ == 2 * most_) keep_best();
  }
  // Ranks, then zeros.
  void save(uint64_t* out) {
    if (count_ > most_) keep_best();
    std::fill(std::copy_n(ranks_, count_, out), out + most_, 0);
  }
  // Ascending keys, then -1.
  void write(int32_t* out) {
    if (count_ > most_) keep_best();
    for (int64_t i = 0; i < most_; ++i) out[i] = i < count_ ? key_of(ranks_[i]) : -1;
    std::sort(out, out + std::min(count_, most_));
  }

 private:
  void keep_best() {
    std::nth_element(ranks_, ranks_ + most_ - 1, ranks_ + count_, std::greater<>());
    count_ = most_;
    floor_ = ranks_[most_ - 1];
  }
  int64_t most_, count_ = 0;
  uint64_t floor_ = 0;  // what no longer has a chance; no rank is 0, since keys are not negative
  uint64_t* ranks_;
};

void check_ranges(std::span<const int32_t> first, std::span<const int32_t> end, int64_t rows, int64_t key_rows) {
  BK_CHECK_EQ(static_cast<int64_t>(first.size()), rows);
  BK_CHECK_EQ(static_cast<int64_t>(end.size()), rows);
  for (size_t t = 0; t < first.size(); ++t) BK_CHECK(first[t] >= 0 && first[t] <= end[t] && end[t] <= key_rows);
}

void list_range(int32_t first, int32_t end, int32_t* out, int64_t width) {
  std::iota(out, out + (end - first), first);
  std::fill(out + (end - first), out + width, -1);
}

}  // namespace

void list_visible(const Exec& exec, std::span<const int32_t> first, std::span<const int32_t> end, IndexMat keys) {
  if (exec.dry()) return;
  check_ranges(first, end, keys.rows, INT32_MAX);
  for (int64_t t = 0; t < keys.rows; ++t) {
    const auto i = static_cast<size_t>(t);
    BK_CHECK_LE(end[i] - first[i], keys.cols);
    list_range(first[i], end[i], keys.row(t), keys.cols);
  }
}

namespace {

struct Selection {
  IndexerShape shape;
  IndexerTensors in;
  std::span<const int32_t> first, end;
  int64_t most;  // keys a query may select

  // Whether query t sees more keys than it may select.
  bool chooses(int64_t t) const { return end[static_cast<size_t>(t)] - first[static_cast<size_t>(t)] > most; }
};

// A block of queries against keys [begin, stop): the best of each query go to its entry of `best`.
void score_keys(const Selection& s, int64_t row, int64_t queries, int32_t begin, int32_t stop,
                std::vector<Best>& best) {
  const auto& kernel = kernels::indexer_kernels();
  WorkerScratch memory;
  int32_t* tile = memory.take<int32_t>(kTile);
  float* out = memory.take<float>(kTile * kMostQueries);
  void* inner = memory.take_bytes(static_cast<size_t>(kernel.score_bytes(s.shape.dim, queries * s.shape.heads)));
  for (int32_t k0 = begin; k0 < stop; k0 += kTile) {
    const int64_t count = std::min<int64_t>(kTile, stop - k0);
    std::iota(tile, tile + count, k0);
    (s.in.q.dtype == f32_t ? kernel.scores_f32 : kernel.scores_bf16)({{tile, nullptr, count, queries},
                                                                      rows_at(s.in.q, row),
                                                                      s.in.k.from(0, 0, s.shape.dim),
                                                                      s.in.w.f32(row),
                                                                      s.in.w.stride,
                                                                      s.shape.heads,
                                                                      s.shape.dim,
                                                                      out,
                                                                      inner});
    for (int64_t i = 0; i < queries; ++i) {
      const auto t = static_cast<size_t>(row + i);
      const int32_t from = std::max(s.first[t], k0), to = std::min<int32_t>(s.end[t], k0 + static_cast<int32_t>(count));
      for (int32_t key = from; key < to; ++key)
        best[static_cast<size_t>(i)].offer(ranked(out[(key - k0) * kMostQueries + i], key));
    }
  }
}

// One block of queries, against one of `parts` parts of the keys: lists go to `keys`, or with several parts the part's
// best to `ranks`.
void select_block(const Selection& s, int64_t row, int64_t part, int64_t parts, IndexMat keys, uint64_t* ranks) {
  const int64_t queries = std::min(kMostQueries, keys.rows - row);
  int32_t begin = INT32_MAX, stop = 0;  // what the queries that have a choice can see
  for (int64_t t = row; t < row + queries; ++t) {
    const auto i = static_cast<size_t>(t);
    if (s.chooses(t))
      begin = std::min(begin, s.first[i]), stop = std::max(stop, s.end[i]);
    else if (part == 0)
      list_range(s.first[i], s.end[i], keys.row(t), keys.cols);
  }
  if (parts > 1)
    begin = std::max<int32_t>(begin, static_cast<int32_t>(part * kPartKeys)),
    stop = std::min<int32_t>(stop, static_cast<int32_t>((part + 1) * kPartKeys));
  WorkerScratch memory;
  std::vector<Best> best;
  for (int64_t i = 0; i < queries; ++i) best.emplace_back(memory, s.most);
  if (begin < stop) score_keys(s, row, queries, begin, stop, best);
  for (int64_t t = row; t < row + queries; ++t) {
    if (!s.chooses(t)) continue;
    Best& b = best[static_cast<size_t>(t - row)];
    if (parts > 1)
      b.save(ranks + (part * keys.rows + t) * s.most);
    else
      b.write(keys.row(t));
  }
}

}  // namespace

void indexer_select(const Exec& exec, const IndexerShape& s, const IndexerTensors& in, std::span<const int32_t> first,
                    std::span<const int32_t> end, IndexMat keys, Arena& scratch) {
  check_operands(s, in);
  const int64_t T = in.q.rows, M = in.k.rows;
  BK_CHECK_EQ(keys.rows, T);
  BK_CHECK(keys.cols > 0);
  // A single block of queries, as in decoding, is cut along the keys instead; the best of the parts' best are the best
  // of all.
  const int64_t parts = T <= kMostQueries ? std::max<int64_t>(1, (M + kPartKeys - 1) / kPartKeys) : 1;
  Arena::Scope scope(scratch);
  uint64_t* ranks = scratch.take<uint64_t>(parts > 1 ? parts * T * keys.cols : 0);
  if (exec.dry() || T == 0) return;
  check_ranges(first, end, T, M);
  Exec::Span span(exec, Work::attention);
  const Selection all{s, in, first, end, keys.cols};
  const int64_t blocks = (T + kMostQueries - 1) / kMostQueries;
  exec.parallel_for(blocks * parts, [&](int64_t task) {
    select_block(all, task / parts * kMostQueries, task % parts, parts, keys, ranks);
  });
  if (parts == 1) return;
  exec.parallel_for(T, [&](int64_t t) {
    if (!all.chooses(t)) return;
    WorkerScratch memory;
    Best best(memory, keys.cols);
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t j = 0; j < keys.cols; ++j) best.offer(ranks[(part * T + t) * keys.cols + j]);
    best.write(keys.row(t));
  });
}

namespace {

// The gradient of the loss, a panel of query blocks at a time: queries leave weights of the keys they list, then tiles
// of keys add up what the blocks of the panel ask of them, in their order.
class IndexerKlSteps {
 public:
  IndexerKlSteps(const Exec& exec, const IndexerShape& s, const IndexerTensors& in, CIndexMat keys, CMat p,
                 const IndexerGradients& d, Arena& scratch)
      : s_(s),
        in_(in),
        p_(p),
        d_(d),
        blocks_(exec, keys, kMostQueries, in.k.rows, scratch),
        stored_(kernels::stored_bytes(blocks_.most_keys(), kMostQueries * s.heads)),
        panel_(blocks_per_panel(blocks_.size(), stored_)),
        tiles_((in.k.rows + kernels::kKeyTile - 1) / kernels::kKeyTile),
        width_((s.dim + 15) / 16 * 16),
        weights_(scratch.take<std::byte>(stored_ * panel_)),
        sums_(scratch.take<float>(tiles_ * kernels::kKeyTile * width_)),
        loss_(scratch.take<float>(in.q.rows)) {}

  // The sum of the losses.
  double run(const Exec& exec, float scale) const {
    std::fill_n(sums_, tiles_ * kernels::kKeyTile * width_, 0.f);
    for (int64_t first = 0; first < blocks_.size(); first += panel_) {
      const int64_t count = std::min(panel_, blocks_.size() - first);
      exec.parallel_for(count, [&](int64_t i) { query_step(first + i, scale); });
      exec.parallel_for(tiles_, [&](int64_t tile) { key_step(tile, first, first + count); });
    }
    const auto& kernel = kernels::sparse_backward_kernels();
    for (int64_t r = 0; r < in_.k.rows; ++r)
      (f32() ? kernel.store_f32 : kernel.store_bf16)(sums_ + r * width_, s_.dim, 1.f, nullptr, 0,
                                                     d_.dk.row_block(r, 1).data);
    return std::accumulate(loss_, loss_ + in_.q.rows, 0.0);
  }

 private:
  bool f32() const { return in_.q.dtype == f32_t; }
  std::byte* weights_of(int64_t block) const { return weights_ + stored_ * (block % panel_); }

  void query_step(int64_t b, float scale) const {
    const auto& kernel = kernels::indexer_kernels();
    const int64_t row = blocks_.first_query(b);
    const kernels::KeyBlock block = blocks_[b];
    WorkerScratch memory;
    void* inner =
        memory.take_bytes(static_cast<size_t>(kernel.gradient_bytes(s_.dim, block.queries * s_.heads, block.count)));
    const Mat dq = d_.dq.row_block(row, block.queries);
    (f32() ? kernel.gradient_f32
           : kernel.gradient_bf16)({block, rows_at(in_.q, row), in_.k.from(0, 0, s_.dim), in_.w.f32(row), in_.w.stride,
                                    s_.heads, s_.dim, p_.f32(row), p_.stride, scale, loss_ + row, dq.data, dq.stride,
                                    d_.dw.f32(row), d_.dw.stride, weights_of(b), inner});
  }

  // Keys of a tile += what query blocks [first_block, end_block) ask of them.
  void key_step(int64_t tile, int64_t first_block, int64_t end_block) const {
    const auto& kernel = kernels::sparse_backward_kernels();
    const int64_t key = tile * kernels::kKeyTile, end_key = std::min(in_.k.rows, key + kernels::kKeyTile);
    WorkerScratch memory;
    void* inner = memory.take_bytes(static_cast<size_t>(kernel.key_gradient_bytes(s_.dim, kMostQueries * s_.heads)));
    for (int64_t b = first_block; b < end_block; ++b) {
      const int64_t begin = blocks_.lower_bound(b, key), end = blocks_.lower_bound(b, end_key);
      if (begin == end) continue;
      const kernels::KeyBlock block = blocks_[b];
      const kernels::Columns x{rows_at(in_.q, blocks_.first_query(b)).data, block.queries * s_.heads, block.queries,
                               s_.dim, in_.q.stride};
      (f32() ? kernel.key_gradient_f32 : kernel.key_gradient_bf16)(
          {block, begin, end, weights_of(b), x, s_.dim, key, sums_ + key * width_, inner});
    }
  }

  const IndexerShape& s_;
  const IndexerTensors& in_;
  CMat p_;
  const IndexerGradients& d_;
  KeyBlocks blocks_;
  int64_t stored_, panel_;  // bytes of a block's weights; blocks whose weights are held at a time
  int64_t tiles_, width_;   // of keys; floats of a key's sum
  std::byte* weights_;
  float *sums_, *loss_;  // [tiles * kKeyTile, width], [T]
};

}  // namespace

double indexer_kl(const Exec& exec, const IndexerShape& s, const IndexerTensors& in, CIndexMat keys, CMat p,
                  float scale, const IndexerGradients& d, Arena& scratch) {
  check_operands(s, in);
  BK_CHECK_EQ(keys.rows, in.q.rows);
  check_shape(p, keys.rows, keys.cols);
  check_shape(d.dq, in.q.rows, in.q.cols);
  check_shape(d.dk, in.k.rows, in.k.cols);
  check_shape(d.dw, in.w.rows, in.w.cols);
  BK_CHECK(p.dtype == f32_t && d.dw.dtype == f32_t && d.dq.dtype == in.q.dtype && d.dk.dtype == in.k.dtype);
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const IndexerKlSteps steps(exec, s, in, keys, p, d, scratch);
  return exec.dry() ? 0 : steps.run(exec, scale);
}

namespace {

int64_t list_length(CIndexMat keys, int64_t row) {
  return std::find(keys.row(row), keys.row(row) + keys.cols, -1) - keys.row(row);
}

SelectionQuality row_quality(CIndexMat visible, const float* p, CIndexMat selected, int64_t row) {
  const int64_t n = list_length(visible, row), k = list_length(selected, row);
  SelectionQuality q;
  if (k >= n) return q;
  std::vector<float> mass(p, p + n), chosen;
  for (int64_t i = 0, j = 0; i < n; ++i)
    if (j < k && selected.row(row)[j] == visible.row(row)[i]) chosen.push_back(mass[static_cast<size_t>(i)]), ++j;
  BK_CHECK_EQ(static_cast<int64_t>(chosen.size()), k);
  std::nth_element(mass.begin(), mass.begin() + k, mass.end(), std::greater<>());
  const float least = k ? *std::min_element(mass.begin(), mass.begin() + k) : 0.f;
  for (int64_t i = 0; i < k; ++i) q.best += static_cast<double>(mass[static_cast<size_t>(i)]);
  for (float m : chosen) q.covered += static_cast<double>(m), q.shared += m >= least;
  q.keys = k;
  return q;
}

}  // namespace

SelectionQuality selection_quality(const Exec& exec, CIndexMat visible, CMat p, CIndexMat selected) {
  check_shape(p, visible.rows, visible.cols);
  BK_CHECK_EQ(selected.rows, visible.rows);
  if (exec.dry()) return {};
  std::vector<SelectionQuality> rows(static_cast<size_t>(p.rows));
  exec.parallel_for((p.rows + 15) / 16, [&](int64_t task) {
    for (int64_t t = 16 * task; t < std::min(p.rows, 16 * (task + 1)); ++t)
      rows[static_cast<size_t>(t)] = row_quality(visible, p.f32(t), selected, t);
  });
  SelectionQuality sum;
  for (const SelectionQuality& q : rows) sum += q;
  return sum;
}

}  // namespace birkhoff::ops
