// The ids of words seen before. A word of up to 31 bytes and its up to 7 ids share one cache line; two words compete
// for two places, so memory is bounded and a lookup touches two lines at most.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace birkhoff::text {

class WordCache {
 public:
  static constexpr size_t kMaxBytes = 31, kMaxIds = 7;
  struct Key {
    uint64_t
        word[4];  // the bytes, zeros, and in the last byte the length + 1: no two words share a key, none is all zero
    bool operator==(const Key& o) const {
      return ((word[0] ^ o.word[0]) | (word[1] ^ o.word[1]) | (word[2] ^ o.word[2]) | (word[3] ^ o.word[3])) == 0;
    }
  };

  // The key of n <= kMaxBytes bytes at p; bytes up to `end` may be read.
  static Key key(const char* p, size_t n, const char* end) {
    Key k{};
    if (end - p >= 32) {
      std::memcpy(k.word, p, 32);
      for (size_t w = 0; w < 4; ++w) {
        const size_t valid = n > 8 * w ? n - 8 * w : 0;
        if (valid < 8) k.word[w] &= (uint64_t{1} << 8 * valid) - 1;
      }
    } else {
      std::memcpy(k.word, p, n);
    }
    k.word[3] |= static_cast<uint64_t>(n + 1) << 56;
    return k;
  }

  // Appends the ids of the word to out; false when it is not here.
  template <class Out>
  bool find(const Key& k, Out& out) {
    size_t at = home(k);
    if (!(lines_[at].key == k) && !(lines_[at ^= 1].key == k)) return false;
    const Line& l = lines_[at];
    out.insert(out.end(), l.ids, l.ids + l.count);
    return true;
  }
  void insert(const Key& k, std::span<const int32_t> ids) {
    if (ids.size() > kMaxIds) return;
    if (++inserted_ > lines_.size() &&
        bits_ < kMostBits) {  // a long text: the few words seen so far are looked up again
      bits_ = kMostBits;
      lines_.assign(size_t{1} << bits_, Line{});
    }
    const size_t at = home(k);
    lines_[at ^ 1] = lines_[at];  // the older of the two words gives way
    Line& l = lines_[at];
    l.key = k;
    l.count = static_cast<uint32_t>(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) l.ids[i] = ids[i];
  }

 private:
  static constexpr int kFirstBits = 9, kMostBits = 15;  // 32 KiB, 2 MiB
  struct alignas(64) Line {
    Key key{};
    int32_t ids[kMaxIds];
    uint32_t count = 0;
  };
  size_t home(const Key& k) const {
    uint64_t h =
        k.word[0] ^ k.word[1] * 0x9E3779B97F4A7C15u ^ k.word[2] * 0xC2B2AE3D27D4EB4Fu ^ k.word[3] * 0x165667B19E3779F9u;
    h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
    return h >> (64 - bits_);
  }
  int bits_ = kFirstBits;
  size_t inserted_ = 0;
  std::vector<Line> lines_ = std::vector<Line>(size_t{1} << kFirstBits);
};

}  // namespace birkhoff::text
