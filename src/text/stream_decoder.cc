#include <algorithm>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace birkhoff::text {
namespace {
constexpr size_t kMostOpen = 8;  // ids of one unfinished character; more are invalid bytes, written as they decode
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
}  // namespace

void StreamDecoder::follow(std::span<const int32_t> ids) { context_.assign(ids.end() - static_cast<std::ptrdiff_t>(std::min(ids.size(), kMostOpen)), ids.end()); }

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  if (!tokenizer_->append_bytes(id, bytes_)) return push_window(id);
  const size_t keep = open_tail(bytes_);
  std::string out = replace_invalid(std::string_view(bytes_).substr(0, bytes_.size() - keep));
  bytes_.erase(0, bytes_.size() - keep);
  return out;
}

// A token's text depends on what stands before it (a space that only the first loses, bytes that together are a character): decode a window
// with and without the open ids and write the difference once it ends in a whole character.
std::string StreamDecoder::push_window(int32_t id) {
  open_.push_back(id);
  std::vector<int32_t> window = context_;
  const std::string before = tokenizer_->decode(window);
  window.insert(window.end(), open_.begin(), open_.end());
  const std::string all = tokenizer_->decode(window);
  const bool cut = all.size() >= kReplacement.size() && all.compare(all.size() - kReplacement.size(), kReplacement.size(), kReplacement) == 0;
  if ((cut && open_.size() < kMostOpen) || all.size() < before.size()) return "";
  if (all.size() > before.size()) {  // ids without text of their own stay open, so that the context is never empty text
    context_ = std::move(open_);
    open_.clear();
  }
  return all.substr(before.size());
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid(bytes_);
  bytes_.clear();
  if (!open_.empty()) {
    std::vector<int32_t> window = context_;
    const size_t before = tokenizer_->decode(window).size();
    window.insert(window.end(), open_.begin(), open_.end());
    const std::string all = tokenizer_->decode(window);
    if (all.size() > before) out += all.substr(before);
  }
  context_.clear();
  open_.clear();
  return out;
}

}  // namespace birkhoff::text
