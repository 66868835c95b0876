#include "text/tokenizer/fim.h"

#include "core/error.h"

namespace birkhoff::text {
namespace {
struct Names {
  const char *begin, *hole, *end;
};
constexpr Names kNames[] = {
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},  // DeepSeek
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},  // Qwen
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},        // StarCoder
};
}  // namespace

FimTokens find_fim_tokens(const Tokenizer& t) {
  for (const Names& n : kNames) {
    const auto begin = t.id(n.begin), hole = t.id(n.hole), end = t.id(n.end);
    if (begin && hole && end) return {*begin, *hole, *end};
  }
  throw Error(
      "tokenizer", "no tokens for filling in the middle",
      std::string("looked for ") + kNames[0].begin + ", " + kNames[0].hole + ", " + kNames[0].end + " and the like");
}

std::vector<int32_t> fim_prompt(const Tokenizer& t, std::string_view prefix, std::string_view suffix) {
  const FimTokens f = find_fim_tokens(t);
  std::vector<int32_t> ids(t.before().begin(), t.before().end());
  ids.push_back(f.begin);
  t.encode(prefix, ids);
  ids.push_back(f.hole);
  t.encode(suffix, ids);
  ids.push_back(f.end);
  return ids;
}

}  // namespace birkhoff::text
