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
  require_absent(c, c.scoring_func == ops::Scoring::softmax, "scoring_func", name_of(c.scoring_func));
}

}  // namespace

const ModelType deepseek{
    .name = "deepseek",
    .architecture = "DeepseekForCausalLM",
    .settings = common_settings({"num_key_value_heads", "head_dim", "intermediate_size", "moe_intermediate_size",
                                 "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "first_k_dense_replace",
                                 "moe_layer_freq", "scoring_func", "norm_topk_prob"}),
    .to_settings = deepseek_to_settings,
    .validate = deepseek_validate};

}  // namespace birkhoff::model::types
