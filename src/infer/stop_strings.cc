#include "infer/stop_strings.h"

#include <algorithm>
#include <utility>

namespace birkhoff::infer {

StopStrings::StopStrings(const std::vector<std::string>& stops, bool keep) : keep_(keep) {
  for (const std::string& s : stops)
    if (!s.empty()) stops_.push_back(s), longest_ = std::max(longest_, s.size());
}

std::string StopStrings::push(std::string part) {
  if (stops_.empty()) return part;
  const size_t before = tail_.size(), said = before - unsaid_;
  tail_ += part;
  size_t end = std::string::npos, length = 0;
  for (const std::string& s : stops_) {
    const size_t at = tail_.find(s, before >= s.size() ? before - s.size() + 1 : 0);
    if (at == std::string::npos || at + s.size() > end) continue;
    length = at + s.size() == end ? std::max(length, s.size()) : s.size();
    end = at + s.size();
  }
  stopped_ = end != std::string::npos;
  if (stopped_) return tail_.substr(said, end - (keep_ ? 0 : length) - said);
  unsaid_ = keep_ ? 0 : may_begin();
  std::string shown = tail_.substr(said, tail_.size() - unsaid_ - said);
  if (tail_.size() >= longest_) tail_.erase(0, tail_.size() - longest_ + 1);
  return shown;
}

// Bytes of the longest end of the text that begins a stop string.
size_t StopStrings::may_begin() const {
  size_t most = 0;
  for (const std::string& s : stops_)
    for (size_t n = std::min(s.size() - 1, tail_.size()); n > most; --n)
      if (std::string_view(tail_).ends_with(std::string_view(s).substr(0, n))) most = n;
  return most;
}

std::string StopStrings::finish() { return stopped_ ? "" : tail_.substr(tail_.size() - std::exchange(unsaid_, 0)); }

}  // namespace birkhoff::infer
