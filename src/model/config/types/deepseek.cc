// DeepseekForCausalLM of DeepSeekMoE-16B (models.md C): multi-head attention, experts weighted by the softmax as it is,
// shared experts stored as one wide network.
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

nlohmann::json deepseek_to_settings(nlohmann::json j) {
  require_plain_layers(j);
  return j;
}

void deepseek_validate(const ModelConfig& c) {
  require_absent(c, !c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.scoring_func == "softmax", "scoring_func", c.scoring_func);
}

}  // namespace

const ModelType deepseek{
    "deepseek",
    "DeepseekForCausalLM",
    common_settings({"num_key_value_heads", "head_dim", "intermediate_size", "moe_intermediate_size",
                     "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "first_k_dense_replace",
                     "moe_layer_freq", "scoring_func", "norm_topk_prob"}),
    [](ModelConfig&) {},
    deepseek_to_settings,
    same,
    deepseek_validate,
    same_name,
    common_ignores,
    no_copies};

}  // namespace birkhoff::model::types
