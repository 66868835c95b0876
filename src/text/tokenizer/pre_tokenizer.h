// The pre-tokenizers of tokenizer.json: they cut a text into the pieces that BPE works on, and may change it
// (ByteLevel, Metaspace).
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "text/tokenizer/pieces.h"

namespace birkhoff::text {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(
      Pieces& pieces) const = 0;  // thread-safe; throws Error (a regular expression that gives up, text over 4 GiB)
};

// The stages of a "pre_tokenizer" entry in order; none for null. When the last stage is ByteLevel, its mapping of bytes
// to symbols is left out and byte_level set: the caller then works on bytes. Throws Error naming an unknown component,
// field or value.
struct PreTokenizerStages {
  std::vector<std::unique_ptr<PreTokenizer>> stages;
  bool byte_level = false;
};
PreTokenizerStages read_pre_tokenizer(const nlohmann::json& entry);

}  // namespace birkhoff::text
