#include "text/jinja/masked_text.h"

namespace birkhoff::text::chat {

bool MaskedText::marked() const { return mask_.find('\1') != std::string::npos; }

void MaskedText::append(std::string_view bytes, bool from_content) {
  if (from_content && mask_.empty()) mask_.assign(bytes_.size(), 0);
  bytes_.append(bytes);
  if (!mask_.empty() || from_content) mask_.append(bytes.size(), from_content ? 1 : 0);
}

void MaskedText::append(const MaskedText& other, size_t begin, size_t end) {
  if (!other.mask_.empty()) {
    if (mask_.empty()) mask_.assign(bytes_.size(), 0);
    mask_.append(other.mask_, begin, end - begin);
  } else if (!mask_.empty()) {
    mask_.append(end - begin, 0);
  }
  bytes_.append(other.bytes_, begin, end - begin);
}

MaskedText MaskedText::sub(size_t begin, size_t end) const {
  MaskedText out;
  out.append(*this, begin, end);
  return out;
}

std::vector<Span> MaskedText::spans() const {
  std::vector<Span> out;
  for (size_t i = 0; i < bytes_.size();) {
    const bool marked = marked_at(i);
    size_t end = i + 1;
    while (end < bytes_.size() && marked_at(end) == marked) ++end;
    out.push_back({bytes_.substr(i, end - i), marked});
    i = end;
  }
  return out;
}

}  // namespace birkhoff::text::chat
