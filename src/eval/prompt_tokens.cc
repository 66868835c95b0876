#include "eval/prompt_tokens.h"

#include <algorithm>

#include "core/error.h"
#include "text/chat/marked_encode.h"
#include "text/jinja/python_text.h"

namespace birkhoff::eval {
namespace {

// Does the text say itself what the tokenizer would put before it?
bool says_bos(const text::Tokenizer& t, const std::string& text) {
  const auto word = t.bos() ? t.token(*t.bos()) : std::nullopt;
  return word && !word->empty() && text.starts_with(*word);
}

// Cuts ids to the last `most`; how many went.
int64_t cut_left(std::vector<int32_t>& ids, int64_t most) {
  const int64_t cut = std::max<int64_t>(0, static_cast<int64_t>(ids.size()) - most);
  ids.erase(ids.begin(), ids.begin() + cut);
  return cut;
}

}  // namespace

std::vector<int32_t> PromptEncoder::encode(const PromptText& p) const {
  const text::Tokenizer* tokenizer = text_.tokenizer().get();
  const std::string& bytes = p.text.bytes();
  if (!tokenizer)
    return {reinterpret_cast<const uint8_t*>(bytes.data()),  // a token a byte
            reinterpret_cast<const uint8_t*>(bytes.data()) + bytes.size()};
  if (!p.rendered)
    return says_bos(*tokenizer, bytes) ? tokenizer->encode(bytes) : tokenizer->encode_with_special(bytes);
  std::vector<int32_t> ids;
  if (!says_bos(*tokenizer, bytes)) ids.assign(tokenizer->before().begin(), tokenizer->before().end());
  const std::vector<int32_t> rest = text::chat::encode_marked(*tokenizer, p.text);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

PromptEncoder::Encoded PromptEncoder::continuation(const PromptText& context, const std::string& continuation) const {
  using text::chat::Side;
  PromptText before{text::chat::py_strip(context.text, std::nullopt, Side::right), context.rendered}, whole = context;
  whole.text.append(continuation, context.rendered);
  std::vector<int32_t> ids;
  size_t first = 0;
  if (!before.text.empty()) {
    ids = encode(before);
    first = ids.size();
    const std::vector<int32_t> all = encode(whole);
    // Where a word runs across the border the ids of the context alone stand, though together there are others.
    if (all.size() > first) ids.insert(ids.end(), all.begin() + static_cast<int64_t>(first), all.end());
  } else {
    const text::Tokenizer* tokenizer = text_.tokenizer().get();
    const int32_t start = text_.prompt("").front();
    ids = tokenizer ? tokenizer->encode(whole.text.bytes()) : encode(whole);
    if (ids.empty() || ids.front() != start) ids.insert(ids.begin(), start);
    first = 1;
  }
  const auto tokens = static_cast<int64_t>(ids.size() - first);
  if (tokens < 1)
    throw Error("eval", "\"" + continuation + "\" adds no token to the text before it",
                "a choice or an answer must have at least one");
  const int64_t cut = cut_left(ids, max_length_ + 1), of_answer = std::max<int64_t>(0, tokens - max_length_);
  return {{std::move(ids), of_answer > 0 ? 1 : first - static_cast<size_t>(cut)}, cut, of_answer};
}

PromptEncoder::Prompt PromptEncoder::prompt(const PromptText& context, int64_t max_tokens) const {
  if (max_tokens >= max_length_)
    throw Error("eval",
                "answers of up to " + std::to_string(max_tokens) + " tokens leave no room for a question: the " +
                    "model reads " + std::to_string(max_length_),
                "lower --max-gen, or raise --context");
  std::vector<int32_t> ids = encode(context);
  if (ids.empty()) ids = text_.prompt("");
  const int64_t cut = cut_left(ids, max_length_ - max_tokens);
  return {std::move(ids), cut};
}

}  // namespace birkhoff::eval
