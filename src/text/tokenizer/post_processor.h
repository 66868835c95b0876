// The post-processors of tokenizer.json: which special tokens stand around the text.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace birkhoff::text {

struct Affixes {
  std::vector<int32_t> before, after;
};
// The tokens around a single sequence. Throws Error naming an unknown component, field or value.
Affixes read_post_processor(const nlohmann::json& entry);

}  // namespace birkhoff::text
