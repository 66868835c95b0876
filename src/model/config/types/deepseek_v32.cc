// DeepseekV32ForCausalLM: V3.2(-Exp), V3 with a lightning indexer in every layer (models.md F).
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

std::vector<std::string> deepseek_v32_settings() {
  std::vector<std::string> list = deepseek_v3_settings();
  list.insert(list.end(), {"index_n_heads", "index_head_dim", "index_topk"});
  return list;
}

// transformers: a kind per layer, which counts whatever first_k_dense_replace says.
nlohmann::json deepseek_v32_to_settings(nlohmann::json j) {
  if (j.contains("mlp_layer_types") && j["mlp_layer_types"].is_array()) {
    int64_t dense = 0, index = 0;
    for (const auto& entry : j["mlp_layer_types"]) {
      std::string kind;
      assign_field("mlp_layer_types", entry, kind);
      require_one_of("mlp_layer_types", kind, {"dense", "sparse"});
      if (kind == "dense" && index != dense++)
        throw Error("config", "mlp_layer_types: dense after sparse", "dense layers are the first ones");
      ++index;
    }
    int64_t layers = index;
    if (j.contains("num_hidden_layers")) assign_field("num_hidden_layers", j["num_hidden_layers"], layers);
    if (layers != index)
      throw Error(
          "config",
          "mlp_layer_types: " + std::to_string(index) + " layers, num_hidden_layers is " + std::to_string(layers),
          "one entry for every layer");
    j["first_k_dense_replace"] = dense;
    j["moe_layer_freq"] = 1;
    j.erase("mlp_layer_types");
  }
  return deepseek_v3_to_settings(std::move(j));
}

void deepseek_v32_validate(const ModelConfig& c) {
  deepseek_v3_validate(c);
  require_absent(c, c.uses_indexer(), "index_topk", std::to_string(c.index_topk));
}

}  // namespace

const ModelType deepseek_v32{.name = "deepseek_v32",
                             .architecture = "DeepseekV32ForCausalLM",
                             .settings = deepseek_v32_settings(),
                             .defaults = deepseek_v3_defaults,
                             .to_settings = deepseek_v32_to_settings,
                             .validate = deepseek_v32_validate,
                             .ignores = deepseek_v3_ignores,
                             .copies = deepseek_v3_copies,
                             .fp8_files = true};

}  // namespace birkhoff::model::types
