#include "model/config/model_type.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/json_fields.h"

namespace birkhoff::model {

const std::vector<const ModelType*>& model_types() {
  static const std::vector<const ModelType*> list{
      &types::birkhoff, &types::llama,       &types::qwen2,       &types::qwen3,        &types::mixtral,
      &types::deepseek, &types::deepseek_v2, &types::deepseek_v3, &types::deepseek_v32, &types::deepseek_v4};
  return list;
}

const ModelType& find_model_type(const std::string& name) {
  std::vector<std::string> names;
  for (const ModelType* t : model_types()) {
    if (t->name == name) return *t;
    names.emplace_back(t->name);
  }
  require_one_of("model_type", name, names);
  std::abort();  // require_one_of threw
}

void validate_type(const ModelConfig& c) {
  const ModelType& type = find_model_type(c.model_type);
  if (!type.settings.empty()) {  // no released type has a setting for the residual path: it means one
    ModelConfig meant;
    type.defaults(meant);
    types::require_absent(c, c.residual == meant.residual, "residual", name_of(c.residual));
  }
  type.validate(c);
}

namespace types {

int64_t block_of(const std::string& name, std::string* rest) {
  const size_t prefix = std::char_traits<char>::length(kLayers);
  if (name.rfind(kLayers, 0) != 0) return -1;
  const size_t dot = name.find('.', prefix);
  if (dot == std::string::npos || dot == prefix || dot > prefix + 9 ||
      name.find_first_not_of("0123456789", prefix) != dot)
    return -1;
  if (rest) *rest = name.substr(dot + 1);
  return std::atoll(name.c_str() + prefix);
}

std::vector<std::string> common_settings(std::vector<std::string> more) {
  for (const char* key : {"model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings",
                          "rope_theta", "rope_scaling", "rope_parameters"})
    more.emplace_back(key);
  return more;
}

nlohmann::json same(nlohmann::json j) { return j; }
std::vector<std::string> same_name(const ModelConfig&, const std::string& name) { return {name}; }
std::vector<std::pair<std::string, std::string>> no_copies(const ModelConfig&) { return {}; }

bool common_ignores(const ModelConfig& c, const std::string& file_name) {
  constexpr std::string_view kBuffer = "rotary_emb.inv_freq";
  if (file_name.size() >= kBuffer.size() &&
      file_name.compare(file_name.size() - kBuffer.size(), kBuffer.size(), kBuffer) == 0)
    return true;
  if (file_name == "lm_head.weight") return c.tie_word_embeddings;
  return block_of(file_name) >= c.blocks();
}

void rename(nlohmann::json& j, const char* from, const char* to) {
  if (!j.contains(from)) return;
  j[to] = j[from];
  j.erase(from);
}

void require_plain_layers(const nlohmann::json& j) {
  const auto want = [&](const char* key, const nlohmann::json& value) {
    if (j.contains(key) && !j[key].is_null() && j[key] != value)
      throw Error("config", std::string(key) + ": " + j[key].dump() + " is not supported, only " + value.dump(),
                  "no model of this family needs it");
  };
  want("hidden_act", "silu");
  want("attention_bias", false);
  want("mlp_bias", false);
}

void require_absent(const ModelConfig& c, bool absent, const char* key, const std::string& value) {
  if (!absent)
    throw Error("config", "model_type: " + c.model_type + " has no " + key + " " + value,
                "leave model_type out, or leave that setting alone");
}

}  // namespace types
}  // namespace birkhoff::model
