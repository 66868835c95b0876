#include "text/chat/marked_encode.h"

namespace birkhoff::text::chat {

std::vector<int32_t> encode_marked(const Tokenizer& tokenizer, const MaskedText& prompt) {
  const std::vector<Span> spans = prompt.spans();
  std::vector<Tokenizer::Part> parts;
  for (const Span& span : spans)
    parts.push_back({span.text, span.from_content ? Tokenizer::Added::plain : Tokenizer::Added::match});
  std::vector<int32_t> ids;
  tokenizer.encode_parts(parts, ids);
  return ids;
}

}  // namespace birkhoff::text::chat
