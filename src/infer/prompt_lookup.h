// A draft without a model: what followed the last time that a text said the same (prompt lookup decoding).
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace birkhoff::infer {

// The ids of one text and where its n-grams were last. Memory: 4 bytes an id, and tables of n-grams that grow with the
// ids up to kMostSlots each. An n-gram that another one pushed out of its slot is not found, never a wrong one.
class PromptLookup {
 public:
  static constexpr size_t kShortest = 2, kLongest = 4;  // n-grams
  static constexpr size_t kMostSlots = size_t{1} << 16;

  void append(std::span<const int32_t> ids);
  void rewind(size_t length);  // keeps the first ids
  size_t length() const { return ids_.size(); }

  // At most `most` ids that followed the latest earlier place of the longest n-gram that the text ends with; empty: it
  // has none. A place so near that its followers reach the end goes round: "a b a b" goes on as "a b a b ...".
  std::vector<int32_t> draft(size_t most = 8) const;

 private:
  size_t slot(size_t n, size_t end) const;
  void index(size_t end);
  void grow();

  std::vector<int32_t> ids_;
  std::array<std::vector<uint32_t>, kLongest + 1> ends_;  // by n: a place behind an n-gram that something follows
};

}  // namespace birkhoff::infer
