// The numbers a setting may have. Every numeric setting of the tables carries one, docs/settings.md states it, and
// every message about it reads alike.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace birkhoff::model {

struct Range {
  enum Ends { closed, above, below };  // above: without low. below: without high
  double low, high;
  Ends ends = closed;

  template <class L, class H>
  constexpr Range(L l, H h, Ends e = closed) : low(static_cast<double>(l)), high(static_cast<double>(h)), ends(e) {}
  bool holds(double v) const {  // false for NaN
    return (ends == above ? v > low : v >= low) && (ends == below ? v < high : v <= high);
  }
  std::string text() const;  // "1 .. 2^24", "(0, 1]", "[0, 1)"
};

// Throw Error("settings") naming the key, what is allowed and the value; of a list each element counts.
void require_in_range(const char* key, int64_t v, const Range& range);
void require_in_range(const char* key, double v, const Range& range);
void require_in_range(const char* key, const std::vector<int64_t>& v, const Range& range);

// f of a table of fields that checks those with a range.
struct CheckRange {
  template <class T>
  void operator()(const char*, const T&) const {}
  template <class T>
  void operator()(const char* key, const T& field, const Range& range) const {
    require_in_range(key, field, range);
  }
};

}  // namespace birkhoff::model
