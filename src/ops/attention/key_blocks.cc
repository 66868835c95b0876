#include "ops/attention/key_blocks.h"

#include <algorithm>

namespace birkhoff::ops {
namespace {

int64_t checked_length(CIndexMat keys, int64_t row, int64_t key_rows) {
  const int32_t* list = keys.row(row);
  int64_t n = 0;
  while (n < keys.cols && list[n] >= 0) {
    BK_CHECK(list[n] < key_rows && (n == 0 || list[n - 1] < list[n]));
    ++n;
  }
  for (int64_t i = n; i < keys.cols; ++i) BK_CHECK_EQ(list[i], -1);
  return n;
}

// Merges the n keys of query i into the m keys so far; returns their number.
int64_t merge_list(const int32_t* list, int64_t n, int64_t i, const int32_t* keys, const uint16_t* seen, int64_t m,
                   int32_t* out_keys, uint16_t* out_seen) {
  const uint16_t bit = static_cast<uint16_t>(1u << i);
  int64_t a = 0, b = 0, count = 0;
  while (a < n || b < m) {
    const bool from_list = a < n && (b == m || list[a] <= keys[b]),
               from_union = b < m && (a == n || keys[b] <= list[a]);
    out_keys[count] = from_list ? list[a] : keys[b];
    out_seen[count] = static_cast<uint16_t>((from_list ? bit : 0) | (from_union ? seen[b] : 0));
    a += from_list, b += from_union, ++count;
  }
  return count;
}

}  // namespace

KeyBlocks::KeyBlocks(const Exec& exec, CIndexMat keys, int64_t per_block, int64_t key_rows, Arena& scratch)
    : keys_(keys), per_block_(per_block), most_(std::min(per_block * keys.cols, key_rows)), key_rows_(key_rows) {
  BK_CHECK(per_block >= 1 && per_block <= kernels::kMostQueries);
  const bool merged = per_block > 1;
  count_ = scratch.take<int32_t>(size());
  union_ = scratch.take<int32_t>(merged ? size() * most_ : 0);
  seen_ = scratch.take<uint16_t>(merged ? size() * most_ : 0);
  if (exec.dry()) return;
  constexpr int64_t kStep = 4;
  exec.parallel_for((size() + kStep - 1) / kStep, [&](int64_t task) {
    for (int64_t b = task * kStep; b < std::min(size(), (task + 1) * kStep); ++b) build(b);
  });
}

void KeyBlocks::build(int64_t block) const {
  const int64_t first = first_query(block), queries = std::min(per_block_, keys_.rows - first);
  if (per_block_ == 1) {
    count_[block] = static_cast<int32_t>(checked_length(keys_, first, key_rows_));
    return;
  }
  WorkerScratch memory;
  int32_t* keys[2] = {memory.take<int32_t>(most_), memory.take<int32_t>(most_)};
  uint16_t* seen[2] = {memory.take<uint16_t>(most_), memory.take<uint16_t>(most_)};
  int64_t count = 0;
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t n = checked_length(keys_, first + i, key_rows_);
    const bool last = i + 1 == queries;
    count = merge_list(keys_.row(first + i), n, i, keys[i % 2], seen[i % 2], count,
                       last ? union_ + block * most_ : keys[1 - i % 2], last ? seen_ + block * most_ : seen[1 - i % 2]);
  }
  count_[block] = static_cast<int32_t>(count);
}

kernels::KeyBlock KeyBlocks::operator[](int64_t block) const {
  const int64_t first = first_query(block), queries = std::min(per_block_, keys_.rows - first);
  if (per_block_ == 1) return {keys_.row(first), nullptr, count_[block], 1};
  return {union_ + block * most_, seen_ + block * most_, count_[block], queries};
}

int64_t KeyBlocks::lower_bound(int64_t block, int64_t key) const {
  const kernels::KeyBlock b = (*this)[block];
  return std::lower_bound(b.keys, b.keys + b.count, key) - b.keys;
}

int64_t blocks_per_panel(int64_t blocks, int64_t bytes_per_block) {
  constexpr int64_t kPanelBytes = int64_t{32} << 20;
  return std::clamp<int64_t>(kPanelBytes / std::max<int64_t>(bytes_per_block, 1), 1, std::max<int64_t>(blocks, 1));
}

}  // namespace birkhoff::ops
