// Tokens and ids of a model: one block of bytes, an index by id and a hash table.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::text {

// Larger than any vocabulary; bounds what a small file can make us allocate.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);
  // A token given twice takes the later id, as in the reference library. Throws Error: id below 0 or above kMaxTokenId,
  // or taken by another token.
  void add(std::string_view token, int64_t id);
  int32_t find(std::string_view token) const;  // -1 when absent
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < entries_.size() && entries_[static_cast<size_t>(id)].begin != kNone;
  }
  std::string_view token(int32_t id) const {  // of an id that has() knows
    const Entry& e = entries_[static_cast<size_t>(id)];
    return {bytes_.data() + e.begin, e.length};
  }
  int32_t count() const { return count_; }                               // tokens
  int32_t end() const { return static_cast<int32_t>(entries_.size()); }  // largest id + 1

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Entry {
    uint32_t begin = kNone, length = 0;
  };
  void rehash(size_t slots);
  std::string bytes_;
  std::vector<Entry> entries_;  // by id
  std::vector<int32_t> slots_;  // ids, -1 empty; a power of two, at most half full
  int32_t count_ = 0;
};

}  // namespace birkhoff::text
