// UTF-8 text that remembers which of its bytes came out of a conversation. Added tokens of a tokenizer may match in
// what a template or an encoder wrote; in the contents of messages the same characters are plain text. Every operation
// on strings in this folder carries the mark along.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::text::chat {

// A run of a rendered prompt.
struct Span {
  std::string text;
  bool from_content = false;
  bool operator==(const Span&) const = default;
};

class MaskedText {
 public:
  MaskedText() = default;
  explicit MaskedText(std::string bytes, bool from_content = false) : bytes_(std::move(bytes)) {
    if (from_content) mask_.assign(bytes_.size(), 1);
  }
  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // Memory held, in bytes.
  size_t held() const { return bytes_.size() + mask_.size(); }
  bool marked_at(size_t i) const { return !mask_.empty() && mask_[i] != 0; }
  bool marked() const;  // any byte
  void append(std::string_view bytes, bool from_content = false);
  void append(const MaskedText& other) { append(other, 0, other.size()); }
  // Bytes [begin, end) of other; aliasing *this is not allowed.
  void append(const MaskedText& other, size_t begin, size_t end);
  MaskedText sub(size_t begin, size_t end) const;
  // Maximal runs, in order; their texts joined are bytes().
  std::vector<Span> spans() const;

 private:
  std::string bytes_;
  std::string mask_;  // empty: nothing is marked; otherwise one 0 or 1 for every byte
};

}  // namespace birkhoff::text::chat
