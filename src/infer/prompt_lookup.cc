#include "infer/prompt_lookup.h"

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::infer {

// Of the n-gram in front of `end`.
size_t PromptLookup::slot(size_t n, size_t end) const {
  uint64_t hash = n;
  for (size_t i = end - n; i < end; ++i) hash = mix64(hash ^ static_cast<uint32_t>(ids_[i]));
  return hash & (ends_[n].size() - 1);
}

void PromptLookup::index(size_t end) {
  for (size_t n = kShortest; n <= std::min(kLongest, end); ++n) ends_[n][slot(n, end)] = static_cast<uint32_t>(end);
}

void PromptLookup::grow() {
  const size_t slots = std::max<size_t>(256, 2 * ends_[kShortest].size());
  for (size_t n = kShortest; n <= kLongest; ++n) ends_[n].assign(slots, 0);
  for (size_t end = 1; end < ids_.size(); ++end) index(end);
}

void PromptLookup::append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    const size_t slots = ends_[kShortest].size();
    if (slots < kMostSlots && 2 * ids_.size() >= slots) grow();
    if (!ids_.empty()) index(ids_.size());
    ids_.push_back(id);
  }
}

void PromptLookup::rewind(size_t length) {
  BK_CHECK(length <= ids_.size());
  ids_.resize(length);  // places behind are found out when they are looked up
}

std::vector<int32_t> PromptLookup::draft(size_t most) const {
  const size_t size = ids_.size();
  for (size_t n = std::min(kLongest, size); n >= kShortest; --n) {
    const size_t end = ends_[n][slot(n, size)];
    const auto at = [&](size_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (end < n || end >= size || !std::equal(at(end - n), at(end), at(size - n))) continue;
    std::vector<int32_t> ids;
    while (ids.size() < most) {
      const size_t next = end + ids.size();
      ids.push_back(next < size ? ids_[next] : ids[next - size]);
    }
    return ids;
  }
  return {};
}

}  // namespace birkhoff::infer
