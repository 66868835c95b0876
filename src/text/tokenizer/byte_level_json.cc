#include "text/tokenizer/byte_level_json.h"

#include <utility>

namespace birkhoff::text {

nlohmann::json byte_level_json(ByteLevelBpe p) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(p.added_tokens)},
          {"normalizer", std::move(p.normalizer)},
          {"pre_tokenizer", std::move(p.pre_tokenizer)},
          {"post_processor", std::move(p.post_processor)},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", p.ignore_merges},
            {"vocab", std::move(p.vocab)},
            {"merges", std::move(p.merges)}}}};
}

}  // namespace birkhoff::text
