// The vocabulary in the metadata of a GGUF file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "io/gguf.h"
#include "text/tokenizer/added_tokens.h"

namespace birkhoff::text {

// tokenizer.ggml.token_type, the numbers of SentencePiece.
enum GgufTokenType : uint64_t {
  kIsNormal = 1,
  kIsUnknown = 2,
  kIsControl = 3,
  kIsUserDefined = 4,
  kIsUnused = 5,
  kIsByte = 6
};

struct GgufTokens {
  std::vector<std::string_view> texts;  // in the mapping
  std::vector<uint64_t> types;
  std::unordered_set<size_t> unwritten;  // what no text can be: empty, no UTF-8, or there twice

  explicit GgufTokens(const io::GgufFile& f);  // throws Error naming key and value
  bool written(size_t i) const { return types[i] != kIsUnused && !unwritten.contains(i); }
  bool added(size_t i) const { return written(i) && (types[i] == kIsControl || types[i] == kIsUserDefined); }
  std::vector<AddedToken> added_tokens() const;
};

// Pairs of tokens in order of rank. Throws Error.
std::vector<std::pair<std::string_view, std::string_view>> read_gguf_merges(const io::GgufFile& f);

// The same as a tokenizer.model of SentencePiece. Throws Error.
std::string gguf_sentencepiece_model(const io::GgufFile& f, const GgufTokens& tokens, bool prefix);

}  // namespace birkhoff::text
