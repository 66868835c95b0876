// DeepseekV32ForCausalLM: V3.2(-Exp), V3 with a lightning indexer in every layer (models.md F).
#include <nlohmann/json.hpp>

#include "model/model_type.h"

namespace birkhoff::model::types {
namespace {

std::vector<std::string> settings() {
  std::vector<std::string> list = deepseek_v3_settings();
  list.insert(list.end(), {"index_n_heads", "index_head_dim", "index_topk"});
  return list;
}

void validate(const ModelConfig& c) {
  deepseek_v3_validate(c);
  require_absent(c, c.uses_indexer(), "index_topk", std::to_string(c.index_topk));
}

}  // namespace

const ModelType deepseek_v32{"deepseek_v32", "DeepseekV32ForCausalLM", settings(), deepseek_v3_defaults, deepseek_v3_to_settings, same,
                             validate,       same_name,               deepseek_v3_ignores, deepseek_v3_copies};

}  // namespace birkhoff::model::types
