// A set of code points with a constant-time test.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::text {

class CodeSet {
 public:
  CodeSet() { pages_.push_back({}); }  // page 0 is the empty one
  bool contains(char32_t c) const { return pages_[index_[c >> 8]][(c & 0xFF) >> 6] >> (c & 63) & 1; }
  void add(char32_t first, char32_t last);
  // Every code point for which test(code point) is true.
  template <class Test>
  void add_if(Test test) {
    for (char32_t c = 0; c < 0x110000; ++c)
      if (test(c)) add(c, c);
  }

 private:
  std::array<uint16_t, 0x1100> index_{};
  std::vector<std::array<uint64_t, 4>> pages_;
};

}  // namespace birkhoff::text
