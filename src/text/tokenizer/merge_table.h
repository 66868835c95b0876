// (left id, right id) -> rank of the merge and id of its result: open addressing, at most half full.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::text {

class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t id = -1;
  };

  explicit MergeTable(size_t merges = 0) {
    while ((size_t{1} << bits_) < 2 * merges) ++bits_;
    slots_.resize(size_t{1} << bits_);
  }
  // No more than the constructor was told. A pair given twice keeps the later merge, as in the reference library.
  void add(int32_t left, int32_t right, Merge merge) {
    const uint64_t k = key(left, right);
    size_t at = home(k);
    while (slots_[at].key != kEmpty && slots_[at].key != k) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = {k, merge};
  }
  Merge find(int32_t left, int32_t right) const {
    const uint64_t k = key(left, right);
    for (size_t at = home(k);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == k) return slots_[at].merge;
      if (slots_[at].key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // ids are never negative
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t home(uint64_t k) const { return (k ^ k >> 31) * 0x9E3779B97F4A7C15u >> (64 - bits_); }
  int bits_ = 4;
  std::vector<Slot> slots_;
};

}  // namespace birkhoff::text
