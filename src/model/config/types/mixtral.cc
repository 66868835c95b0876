// MixtralForCausalLM (models.md B): every layer has experts, chosen by a renormalised softmax.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

void mixtral_defaults(ModelConfig& c) {
  c.norm_topk_prob = true;
  c.n_routed_experts = 8;
  c.num_experts_per_tok = 2;
  c.rms_norm_eps = 1e-5;
  c.rope_theta = 1e6;
}

nlohmann::json mixtral_to_settings(nlohmann::json j) {
  require_plain_layers(j);
  if (j.contains("sliding_window") && !j["sliding_window"].is_null() &&
      !(j["sliding_window"].is_number_integer() &&
        field_or<int64_t>(j, "max_position_embeddings", INT64_MAX) <= j["sliding_window"].get<int64_t>()))
    throw Error("config", "sliding_window: " + j["sliding_window"].dump() + " is not supported for mixtral, only null",
                "the released Mixtral models attend to everything");
  rename(j, "num_local_experts", "n_routed_experts");
  rename(j, "intermediate_size", "moe_intermediate_size");
  return j;
}

nlohmann::json mixtral_from_settings(nlohmann::json j) {
  rename(j, "n_routed_experts", "num_local_experts");
  rename(j, "moe_intermediate_size", "intermediate_size");
  return j;
}

void mixtral_validate(const ModelConfig& c) {
  require_absent(c, !c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.n_routed_experts > 0, "n_routed_experts", std::to_string(c.n_routed_experts));
  require_absent(c, c.n_shared_experts == 0, "n_shared_experts", std::to_string(c.n_shared_experts));
  require_absent(c, c.first_k_dense_replace == 0, "first_k_dense_replace", std::to_string(c.first_k_dense_replace));
}

std::vector<std::string> mixtral_file_names(const ModelConfig&, const std::string& name) {
  std::string rest;
  const int64_t block = block_of(name, &rest);
  if (block < 0 || rest.rfind("mlp.", 0) != 0) return {name};
  const std::string prefix = kLayers + std::to_string(block) + ".block_sparse_moe.";
  rest = rest.substr(4);
  for (const auto& [ours, theirs] : {std::pair{"gate_proj", "w1"}, {"down_proj", "w2"}, {"up_proj", "w3"}}) {
    const size_t at = rest.find(ours);
    if (at != std::string::npos) rest.replace(at, std::char_traits<char>::length(ours), theirs);
  }
  return {prefix + rest};
}

}  // namespace

const ModelType mixtral{.name = "mixtral",
                        .architecture = "MixtralForCausalLM",
                        .settings = common_settings({"num_key_value_heads", "head_dim", "n_routed_experts",
                                                     "num_experts_per_tok", "moe_intermediate_size"}),
                        .defaults = mixtral_defaults,
                        .to_settings = mixtral_to_settings,
                        .from_settings = mixtral_from_settings,
                        .validate = mixtral_validate,
                        .file_names = mixtral_file_names,
                        .always_normalises = true};

}  // namespace birkhoff::model::types
