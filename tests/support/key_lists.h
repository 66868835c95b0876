// Lists of keys for tests of sparse attention and the indexer.
#pragma once
#include <algorithm>
#include <vector>

#include "core/rng.h"
#include "core/view.h"
#include "reference/sparse_attention.h"

namespace birkhoff::test {

// Lists as ops take them.
class OwnedLists {
 public:
  OwnedLists(const reference::KeyLists& lists, int64_t width)
      : rows_(static_cast<int64_t>(lists.size())), width_(width), keys_(lists.size() * static_cast<size_t>(width), -1) {
    for (size_t t = 0; t < lists.size(); ++t)
      std::copy(lists[t].begin(), lists[t].end(), keys_.begin() + static_cast<std::ptrdiff_t>(t) * width);
  }
  operator CIndexMat() const { return {keys_.data(), rows_, width_}; }
  operator IndexMat() { return {keys_.data(), rows_, width_}; }
  reference::KeyLists lists() const {
    reference::KeyLists out;
    for (int64_t t = 0; t < rows_; ++t) {
      const auto begin = keys_.begin() + t * width_;
      out.emplace_back(begin, std::find(begin, begin + width_, -1));
    }
    return out;
  }

 private:
  int64_t rows_, width_;
  std::vector<int32_t> keys_;
};

// Of each query a random number of keys, from `least` to `most`, among the first it may see; queries are the last of
// the keys.
inline reference::KeyLists random_lists(int64_t queries, int64_t keys, int64_t least, int64_t most, uint64_t seed) {
  reference::KeyLists lists;
  for (int64_t t = 0; t < queries; ++t) {
    const Rng rng(seed, static_cast<uint64_t>(t));
    const int64_t visible = keys - queries + t + 1;
    const int64_t n =
        std::min(visible, least + static_cast<int64_t>(rng.bits(0) % static_cast<uint64_t>(most - least + 1)));
    std::vector<std::pair<uint64_t, int32_t>> order;
    for (int64_t s = 0; s < visible; ++s)
      order.push_back({rng.bits(1 + static_cast<uint64_t>(s)), static_cast<int32_t>(s)});
    std::sort(order.begin(), order.end());
    std::vector<int32_t> list;
    for (int64_t i = 0; i < n; ++i) list.push_back(order[static_cast<size_t>(i)].second);
    std::sort(list.begin(), list.end());
    lists.push_back(list);
  }
  return lists;
}

}  // namespace birkhoff::test
