// A tokenizer.json of byte-level BPE, as the reference library writes it.
#pragma once
#include <nlohmann/json.hpp>

namespace birkhoff::text {

// What one differs in from another.
struct ByteLevelBpe {
  nlohmann::json vocab, merges;  // token -> id; "left right", the most important first
  nlohmann::json added_tokens;
  nlohmann::json normalizer, pre_tokenizer, post_processor;  // null: none
  bool ignore_merges = false;
};
nlohmann::json byte_level_json(ByteLevelBpe parts);

}  // namespace birkhoff::text
