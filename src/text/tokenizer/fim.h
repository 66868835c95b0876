// Filling in the middle (arXiv 2207.14255, 2401.14196): the model reads what stands before and after a hole and writes
// what belongs there.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {

struct FimTokens {
  int32_t begin, hole, end;  // begin PREFIX hole SUFFIX end -> MIDDLE, then the end token
};
// By the names that released models give them. Throws Error, naming those, when the tokenizer has none.
FimTokens find_fim_tokens(const Tokenizer& t);
// The prompt, with the tokens that the model expects before a text. Added tokens in prefix and suffix are tokens, as in
// training data.
std::vector<int32_t> fim_prompt(const Tokenizer& t, std::string_view prefix, std::string_view suffix);

}  // namespace birkhoff::text
