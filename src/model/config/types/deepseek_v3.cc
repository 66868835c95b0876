// DeepseekV3ForCausalLM: V3, R1, V3.1 (models.md E). Multi-token prediction modules are blocks past the last layer;
// files repeat embedding and head in them.
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {

std::vector<std::string> deepseek_v3_settings() {
  return common_settings({"num_key_value_heads",
                          "q_lora_rank",
                          "kv_lora_rank",
                          "qk_nope_head_dim",
                          "qk_rope_head_dim",
                          "v_head_dim",
                          "intermediate_size",
                          "moe_intermediate_size",
                          "n_routed_experts",
                          "n_shared_experts",
                          "num_experts_per_tok",
                          "first_k_dense_replace",
                          "moe_layer_freq",
                          "n_group",
                          "topk_group",
                          "topk_method",
                          "scoring_func",
                          "norm_topk_prob",
                          "routed_scaling_factor",
                          "rope_interleave",
                          "num_nextn_predict_layers"});
}

void deepseek_v3_defaults(ModelConfig& c) {
  c.scoring_func = ops::Scoring::sigmoid;
  c.topk_method = TopkMethod::noaux_tc;
  c.norm_topk_prob = true;
}

nlohmann::json deepseek_v3_to_settings(nlohmann::json j) {
  require_plain_layers(j);
  j.erase("head_dim");  // some files repeat qk_rope_head_dim here
  return j;
}

void deepseek_v3_validate(const ModelConfig& c) {
  require_absent(c, c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.scoring_func == ops::Scoring::sigmoid, "scoring_func", name_of(c.scoring_func));
  require_absent(c, c.topk_method == TopkMethod::noaux_tc, "topk_method", name_of(c.topk_method));
}

bool deepseek_v3_ignores(const ModelConfig& c, const std::string& file_name) {
  std::string rest;
  if (block_of(file_name, &rest) >= c.num_hidden_layers &&
      (rest == "embed_tokens.weight" || rest == "shared_head.head.weight"))
    return true;
  return common_ignores(c, file_name);
}

std::vector<std::pair<std::string, std::string>> deepseek_v3_copies(const ModelConfig& c) {
  std::vector<std::pair<std::string, std::string>> list;
  for (int64_t i = c.num_hidden_layers; i < c.blocks(); ++i) {
    const std::string p = kLayers + std::to_string(i) + ".";
    list.emplace_back(p + "embed_tokens.weight", "model.embed_tokens.weight");
    list.emplace_back(p + "shared_head.head.weight",
                      c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  }
  return list;
}

const ModelType deepseek_v3{.name = "deepseek_v3",
                            .architecture = "DeepseekV3ForCausalLM",
                            .settings = deepseek_v3_settings(),
                            .defaults = deepseek_v3_defaults,
                            .to_settings = deepseek_v3_to_settings,
                            .validate = deepseek_v3_validate,
                            .ignores = deepseek_v3_ignores,
                            .copies = deepseek_v3_copies,
                            .fp8_files = true};

}  // namespace birkhoff::model::types
