// What tokenizer_config.json, special_tokens_map.json and config.json of a model's directory say about its tokenizer.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {

class DirectorySettings {
 public:
  // Missing files are empty ones. Throws Error naming file and field of a wrong type.
  explicit DirectorySettings(const std::string& directory);

  // added_tokens_decoder (without it added_tokens.json): tokens by id. Then the special tokens that the files name
  // (*_token, additional_special_tokens, extra_special_tokens) with id -1: they are tokens where the vocabulary holds
  // them.
  std::vector<AddedToken> added_tokens() const;
  // Of a SentencePiece model: "legacy" and "add_prefix_space".
  SpacePrefix space_prefix() const;
  // Sets the special ids, the tokens that encode_with_special puts around a text and the list of files. sentencepiece:
  // BOS is added unless the files say otherwise.
  void apply(Tokenizer& t, bool sentencepiece) const;
  const std::vector<std::string>& files() const { return files_; }

 private:
  nlohmann::json read(const std::string& name);
  std::vector<AddedToken> numbered_tokens() const;
  std::vector<AddedToken> special_tokens() const;
  std::optional<std::string> token(const char* name) const;  // "bos_token", as a string or an object with "content"
  std::optional<bool> flag(const char* name) const;
  std::optional<int32_t> find(const Tokenizer& t, const char* token_name, const char* id_name) const;

  std::string directory_;
  std::vector<std::string> files_;
  nlohmann::json config_, map_, model_;
  nlohmann::json added_;  // added_tokens.json, of the time before added_tokens_decoder: content to id
};

}  // namespace birkhoff::text
