#include "core/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace birkhoff {
namespace {
constexpr size_t kLongestName = 200;

// Insertions, deletions, substitutions and swaps of neighbours.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> before, above, row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j - 1] + (a[i - 1] != b[j - 1]), above[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// A name that was not typed to its end is close, however much is missing.
size_t distance(const std::string& typed, const std::string& name) {
  const size_t d = edit_distance(typed, name);
  return typed.size() >= 3 && name.rfind(typed, 0) == 0 ? std::min<size_t>(d, 2) : d;
}
}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  if (name.size() > kLongestName) return "";  // near to none, and long to compare
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto& c : candidates) {
    const size_t d = distance(name, c);
    if (d < best_distance) best = c, best_distance = d;
  }
  return best;
}

}  // namespace birkhoff
