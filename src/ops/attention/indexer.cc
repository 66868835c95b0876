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

void check_operands(const IndexerShape& s, CMat q, CMat k, CMat w) {
  BK_CHECK(s.heads > 0 && s.dim > 0);
  check_shape(q, q.rows, s.heads * s.dim);
  check_shape(k, k.rows, s.dim);
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

// A block of queries against keys [begin, end): the best of each query go to its entry of `best`.
struct Selection {
  CMat q, k, w;
  std::span<const int32_t> first, end;
  IndexerShape shape;
};
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
    (s.q.dtype == f32_t ? kernel.scores_f32 : kernel.scores_bf16)({{tile, nullptr, count, queries},
                                                                   rows_at(s.q, row),
                                                                   rows_at(s.k, 0),
                                                                   s.w.f32(row),
                                                                   s.w.stride,
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

}  // namespace

void indexer_select(const Exec& exec, const IndexerShape& s, CMat q, CMat k, CMat w, std::span<const int32_t> first,
                    std::span<const int32_t> end, IndexMat keys, Arena& scratch) {
  check_operands(s, q, k, w);
  BK_CHECK_EQ(keys.rows, q.rows);
  BK_CHECK(keys.cols > 0);
  // A single block of queries, as in decoding, is cut along the keys instead; the best of the parts' best are the best
  // of all.
  const int64_t parts = q.rows <= kMostQueries ? std::max<int64_t>(1, (k.rows + kPartKeys - 1) / kPartKeys) : 1;
  Arena::Scope scope(scratch);
  uint64_t* ranks = scratch.take<uint64_t>(parts > 1 ? parts * q.rows * keys.cols : 0);
  if (exec.dry() || q.rows == 0) return;
  check_ranges(first, end, q.rows, k.rows);
  Exec::Span span(exec, Work::attention);
  const Selection all{q, k, w, first, end, s};
  const int64_t blocks = (q.rows + kMostQueries - 1) / kMostQueries;
  exec.parallel_for(blocks * parts, [&](int64_t task) {
    const int64_t row = task / parts * kMostQueries, queries = std::min(kMostQueries, q.rows - row),
                  part = task % parts;
    int32_t begin = INT32_MAX, stop = 0;  // what the queries that have a choice can see
    for (int64_t t = row; t < row + queries; ++t) {
      const auto i = static_cast<size_t>(t);
      if (end[i] - first[i] <= keys.cols) {
        if (part == 0) list_range(first[i], end[i], keys.row(t), keys.cols);
      } else {
        begin = std::min(begin, first[i]), stop = std::max(stop, end[i]);
      }
    }
    if (parts > 1)
      begin = std::max<int32_t>(begin, static_cast<int32_t>(part * kPartKeys)),
      stop = std::min<int32_t>(stop, static_cast<int32_t>((part + 1) * kPartKeys));
    WorkerScratch memory;
    std::vector<Best> best;
    for (int64_t i = 0; i < queries; ++i) best.emplace_back(memory, keys.cols);
    if (begin < stop) score_keys(all, row, queries, begin, stop, best);
    for (int64_t t = row; t < row + queries; ++t) {
      const auto i = static_cast<size_t>(t);
      if (end[i] - first[i] <= keys.cols) continue;
      Best& b = best[static_cast<size_t>(t - row)];
      if (parts > 1)
        b.save(ranks + (part * q.rows + t) * keys.cols);
      else
        b.write(keys.row(t));
    }
  });
  if (parts == 1) return;
  exec.parallel_for(q.rows, [&](int64_t t) {
    const auto i = static_cast<size_t>(t);
    if (end[i] - first[i] <= keys.cols) return;
    WorkerScratch memory;
    Best best(memory, keys.cols);
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t j = 0; j < keys.cols; ++j) best.offer(ranks[(part * q.rows + t) * keys.cols + j]);
    best.write(keys.row(t));
  });
}

double indexer_kl(const Exec& exec, const IndexerShape& s, CMat q, CMat k, CMat w, CIndexMat keys, CMat p, float scale,
                  Mat dq, Mat dk, Mat dw, Arena& scratch) {
  check_operands(s, q, k, w);
  BK_CHECK_EQ(keys.rows, q.rows);
  check_shape(p, keys.rows, keys.cols);
  check_shape(dq, q.rows, q.cols);
  check_shape(dk, k.rows, k.cols);
  check_shape(dw, w.rows, w.cols);
  BK_CHECK(p.dtype == f32_t && dw.dtype == f32_t && dq.dtype == q.dtype && dk.dtype == k.dtype);
  Arena::Scope scope(scratch);
  Exec::Span span(exec, Work::attention);
  const KeyBlocks blocks(exec, keys, kMostQueries, k.rows, scratch);
  const int64_t stored = kernels::stored_bytes(blocks.most_keys(), kMostQueries * s.heads);
  const int64_t panel = blocks_per_panel(blocks.size(), stored);
  const int64_t tiles = (k.rows + kernels::kKeyTile - 1) / kernels::kKeyTile,
                tile_floats = kernels::kKeyTile * ((s.dim + 15) / 16 * 16);
  std::byte* weights = scratch.take<std::byte>(stored * panel);
  float* sums = scratch.take<float>(tiles * tile_floats);
  float* loss = scratch.take<float>(q.rows);
  if (exec.dry()) return 0;

  const auto& kernel = kernels::indexer_kernels();
  const auto& keys_kernel = kernels::sparse_backward_kernels();
  const bool f32 = q.dtype == f32_t;
  const auto query_step = [&](int64_t b) {
    const int64_t row = blocks.first_query(b);
    const kernels::KeyBlock block = blocks[b];
    WorkerScratch memory;
    void* inner =
        memory.take_bytes(static_cast<size_t>(kernel.gradient_bytes(s.dim, block.queries * s.heads, block.count)));
    const Mat dq_rows = dq.row_block(row, block.queries);
    (f32 ? kernel.gradient_f32 : kernel.gradient_bf16)(
        {block, rows_at(q, row), rows_at(k, 0), w.f32(row), w.stride, s.heads, s.dim, p.f32(row), p.stride, scale,
         loss + row, dq_rows.data, dq.stride, dw.f32(row), dw.stride, weights + stored * (b % panel), inner});
  };
  const auto key_step = [&](int64_t tile, int64_t first_block, int64_t end_block) {
    const int64_t key = tile * kernels::kKeyTile, end_key = std::min(k.rows, key + kernels::kKeyTile);
    WorkerScratch memory;
    void* inner = memory.take_bytes(static_cast<size_t>(keys_kernel.key_gradient_bytes(s.dim, kMostQueries * s.heads)));
    for (int64_t b = first_block; b < end_block; ++b) {
      const int64_t begin = blocks.lower_bound(b, key), end = blocks.lower_bound(b, end_key);
      if (begin == end) continue;
      const kernels::KeyBlock block = blocks[b];
      const kernels::Columns x{rows_at(q, blocks.first_query(b)).data, block.queries * s.heads, block.queries, s.dim,
                               q.stride};
      (f32 ? keys_kernel.key_gradient_f32 : keys_kernel.key_gradient_bf16)(
          {block, begin, end, weights + stored * (b % panel), x, s.dim, key, sums + tile * tile_floats, inner});
    }
  };
  std::fill_n(sums, tiles * tile_floats, 0.f);
  for (int64_t first = 0; first < blocks.size(); first += panel) {
    const int64_t count = std::min(panel, blocks.size() - first);
    exec.parallel_for(count, [&](int64_t i) { query_step(first + i); });
    exec.parallel_for(tiles, [&](int64_t tile) { key_step(tile, first, first + count); });
  }
  const int64_t width = tile_floats / kernels::kKeyTile;
  for (int64_t r = 0; r < k.rows; ++r)
    (f32 ? keys_kernel.store_f32 : keys_kernel.store_bf16)(sums + r * width, s.dim, 1.f, nullptr, 0,
                                                           dk.row_block(r, 1).data);
  return std::accumulate(loss, loss + q.rows, 0.0);
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
