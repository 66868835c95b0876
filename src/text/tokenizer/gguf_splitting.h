// The pre-tokenizers that tokenizer.ggml.pre of a GGUF file names.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::text {

// What the released tokenizer.json says in the place of the name.
struct GgufSplitting {
  nlohmann::json normalizer() const;                      // an entry of tokenizer.json
  nlohmann::json pre_tokenizer() const;                   // the same
  bool nfc = false, single_digits = false, gpt2 = false;  // gpt2: words as ByteLevel cuts them
  bool ignore_merges = false;                             // whole pieces that are tokens stay whole
  bool adds_bos = false;                                  // unless the file says otherwise
  std::vector<const char*> patterns;                      // applied one after the other
};
// Throws Error naming a word that is not known.
const GgufSplitting& find_gguf_splitting(std::string_view pre);

// The name whose rules the components of a tokenizer.json are; "" when there is none.
std::string gguf_splitting_name(const nlohmann::json& tokenizer);

}  // namespace birkhoff::text
