// DeepseekV2ForCausalLM: V2, V2-Lite, Coder-V2 (models.md D).
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

nlohmann::json deepseek_v2_to_settings(nlohmann::json j) {
  require_plain_layers(j);
  j.erase("head_dim");  // some files repeat qk_rope_head_dim here
  return j;
}

void deepseek_v2_validate(const ModelConfig& c) {
  require_absent(c, c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.scoring_func == ops::Scoring::softmax, "scoring_func", name_of(c.scoring_func));
  require_absent(c, c.topk_method != TopkMethod::noaux_tc, "topk_method", name_of(c.topk_method));
}

}  // namespace

const ModelType deepseek_v2{
    .name = "deepseek_v2",
    .architecture = "DeepseekV2ForCausalLM",
    .settings = common_settings({"num_key_value_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
                                 "qk_rope_head_dim", "v_head_dim", "intermediate_size", "moe_intermediate_size",
                                 "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "first_k_dense_replace",
                                 "moe_layer_freq", "n_group", "topk_group", "topk_method", "scoring_func",
                                 "norm_topk_prob", "routed_scaling_factor"}),
    .to_settings = deepseek_v2_to_settings,
    .validate = deepseek_v2_validate};

}  // namespace birkhoff::model::types
