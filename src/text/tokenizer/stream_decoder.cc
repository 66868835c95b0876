#include <algorithm>

#include "text/tokenizer/tokenizer.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {
constexpr size_t kContext = 8;    // ids before the first push that what follows may depend on
constexpr size_t kMostBytes = 4;  // of a character
}  // namespace

void StreamDecoder::follow(std::span<const int32_t> ids) {
  context_.assign(ids.end() - static_cast<std::ptrdiff_t>(std::min(ids.size(), kContext)), ids.end());
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  if (!tokenizer_->append_bytes(id, bytes_)) return push_window(id);
  const size_t keep = open_tail(bytes_);
  std::string out = replace_invalid(std::string_view(bytes_).substr(0, bytes_.size() - keep));
  bytes_.erase(0, bytes_.size() - keep);
  return out;
}

// Do the open ids end in byte tokens that are the beginning of a character?
bool StreamDecoder::in_character() const {
  std::string bytes;
  for (auto id = open_.rbegin(); id != open_.rend() && bytes.size() < kMostBytes; ++id) {
    const std::optional<uint8_t> byte = tokenizer_->fallback_byte(*id);
    if (!byte) break;
    bytes.insert(bytes.begin(), static_cast<char>(*byte));
  }
  return open_tail(bytes) > 0;
}

// What the open ids add to the text of the context. Text that an invalid byte changes after the fact is not taken back.
std::string StreamDecoder::open_text() const {
  std::vector<int32_t> window = context_;
  const std::string before = tokenizer_->decode(window);
  window.insert(window.end(), open_.begin(), open_.end());
  const std::string all = tokenizer_->decode(window);
  return all.starts_with(before) ? all.substr(before.size()) : tokenizer_->decode(open_);
}

// A token's text depends on what stands before it (a space that only the first loses, bytes that together are a
// character): decode a window with and without the open ids and write the difference once it ends in a whole character.
std::string StreamDecoder::push_window(int32_t id) {
  open_.push_back(id);
  if (in_character()) return "";
  std::string out = open_text();
  if (!out.empty()) {  // ids without text of their own stay open, so that the context is never empty text
    context_ = std::move(open_);
    open_.clear();
  }
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid(bytes_);
  bytes_.clear();
  if (!open_.empty()) out += open_text();
  context_.clear();
  open_.clear();
  return out;
}

}  // namespace birkhoff::text
