// LlamaForCausalLM: DeepSeek LLM, Coder, Math, Prover (models.md A).
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

nlohmann::json llama_to_settings(nlohmann::json j) {
  require_plain_layers(j);
  return j;
}

void llama_validate(const ModelConfig& c) {
  require_absent(c, !c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.n_routed_experts == 0, "n_routed_experts", std::to_string(c.n_routed_experts));
}

}  // namespace

const ModelType llama{.name = "llama",
                      .architecture = "LlamaForCausalLM",
                      .settings = common_settings({"num_key_value_heads", "head_dim", "intermediate_size"}),
                      .to_settings = llama_to_settings,
                      .validate = llama_validate};

}  // namespace birkhoff::model::types
