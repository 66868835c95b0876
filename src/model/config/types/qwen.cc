// Qwen2ForCausalLM and Qwen3ForCausalLM, the bases of the distilled models (models.md A.4): Llama's layers with biases
// of q, k and v (Qwen2), or with queries and keys normalised head by head (Qwen3).
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

using nlohmann::json;

[[noreturn]] void bad_qwen_config(const std::string& what) {
  throw Error("config", what, "the released models attend to everything and count positions in one way");
}

json qwen_to_settings(json j) {
  require_plain_layers(j);
  const json layers = j.value("layer_types", json());
  if (layers.is_array() &&
      std::any_of(layers.begin(), layers.end(), [](const json& l) { return l != "full_attention"; }))
    bad_qwen_config("layer_types: only \"full_attention\" is supported");
  if (j.value("use_mrope", json(false)) == true) bad_qwen_config("use_mrope: true is not supported, only false");
  const json window = j.value("sliding_window", json());
  if (window.is_null()) return j;
  bool slides = false;  // what the key means where it is absent
  if (j.contains("use_sliding_window")) assign_field("use_sliding_window", j["use_sliding_window"], slides);
  const bool reached =
      !window.is_number_integer() || window.get<int64_t>() < field_or<int64_t>(j, "max_position_embeddings", INT64_MAX);
  if (slides && reached)
    bad_qwen_config("use_sliding_window: true with sliding_window " + window.dump() + " is not supported, only false");
  j["use_sliding_window"] = slides;
  return j;
}

// Outside latent attention YaRN has one magnitude, which mscale's defaults say already.
json qwen_from_settings(json j) {
  json& rope = j["rope_scaling"];
  if (rope.is_object() && rope.value("mscale", 1.0) == 1.0 && rope.value("mscale_all_dim", 0.0) == 0.0)
    for (const char* key : {"mscale", "mscale_all_dim"}) rope.erase(key);
  return j;
}

void qwen_validate(const ModelConfig& c) {
  require_absent(c, !c.uses_mla(), "kv_lora_rank", std::to_string(c.kv_lora_rank));
  require_absent(c, c.n_routed_experts == 0, "n_routed_experts", std::to_string(c.n_routed_experts));
}

ModelType qwen(const char* name, const char* architecture, void (*defaults)(ModelConfig&)) {
  ModelType t{.name = name, .architecture = architecture};
  t.settings = common_settings({"num_key_value_heads", "head_dim", "intermediate_size"});
  t.defaults = defaults;
  t.to_settings = qwen_to_settings;
  t.from_settings = qwen_from_settings;
  t.validate = qwen_validate;
  return t;
}

}  // namespace

const ModelType qwen2 = qwen("qwen2", "Qwen2ForCausalLM", [](ModelConfig& c) { c.qkv_bias = true; });
const ModelType qwen3 = qwen("qwen3", "Qwen3ForCausalLM", [](ModelConfig& c) {
  c.qk_norm = true;
  c.head_dim = 128;
});

}  // namespace birkhoff::model::types
