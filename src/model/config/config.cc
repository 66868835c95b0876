#include "model/config/config.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "model/config/fields.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"
#include "model/config/rope_settings.h"

namespace birkhoff::model {
using nlohmann::json;

void refuse(const std::string& what, const std::string& hint) { throw Error("config", what, hint); }

bool set_model_field(ModelConfig& c, const std::string& key, const json& value) {
  bool found = false;
  for_each_field(c, [&](const char* name, auto& field, const auto&...) {
    if (key == name) {
      assign_field(key, value, field);
      found = true;
    }
  });
  if (key == "rope_scaling" || key == "rope_parameters") {
    parse_rope(c, value);
    found = true;
  }
  return found;
}

std::vector<std::string> model_setting_names() {
  std::vector<std::string> names{"rope_scaling"};
  ModelConfig c;
  for_each_field(c, [&](const char* name, auto&, const auto&...) { names.emplace_back(name); });
  return names;
}

// quantization_config.weight_block_size, [128, 128] where absent.
static Quantisation read_quantisation(const json& config) {
  Quantisation q;
  const json said = config.value("quantization_config", json());
  const json block = said.is_object() ? said.value("weight_block_size", json()) : json();
  if (block.is_null()) return q;
  const auto sensible = [](const json& v) {
    return v.is_number_integer() && v.get<int64_t>() >= 1 && v.get<int64_t>() <= (1 << 20);
  };
  if (!block.is_array() || block.size() != 2 || !sensible(block[0]) || !sensible(block[1]))
    refuse("weight_block_size: " + block.dump() + " is no pair of rows and columns", "released files have [128, 128]");
  q.block_rows = block[0].get<int64_t>();
  q.block_cols = block[1].get<int64_t>();
  return q;
}

// config.json -> settings: the type's spelling is undone, defaults of what released files leave out are filled in.
ModelConfig config_from_json(const json& j) {
  if (!j.is_object()) refuse("config.json is not a JSON object");
  if (!j.contains("model_type")) refuse("config.json has no model_type", "is this a Hugging Face model directory?");
  ModelConfig c;
  assign_field("model_type", j["model_type"], c.model_type);
  const ModelType& type = find_model_type(c.model_type);
  type.defaults(c);
  const json settings = type.to_settings(j);
  const std::set<std::string> own(type.settings.begin(), type.settings.end());
  json unknown = json::object();
  const auto set = [&](const std::string& key, const json& value) {
    if (value.is_null() && key.rfind("rope_", 0) == 0) return;  // says nothing beside the other spelling
    if (!(own.empty() || own.count(key)) || !set_model_field(c, key, value)) unknown[key] = value;
  };
  // What rope_parameters says counts beside rope_theta, and does not beside rope_scaling.
  const char* kLast = "rope_parameters";
  for (const auto& [key, value] : settings.items())
    if (key != kLast) set(key, value);
  const bool scaled =
      settings.contains("rope_scaling") && settings["rope_scaling"].is_object() && !settings["rope_scaling"].empty();
  if (settings.contains(kLast) && !scaled) set(kLast, settings[kLast]);
  c.unknown_keys = unknown.dump();
  c.quantisation = read_quantisation(j);
  validate(c);
  return c;
}

std::string unknown_key_names(const ModelConfig& c) {
  static const std::set<std::string> read_elsewhere{"architectures", "quantization_config", "bos_token_id",
                                                    "eos_token_id", "chat_encoder"};
  const json unknown = json::parse(c.unknown_keys);
  std::string names;
  for (const auto& [key, value] : unknown.items())
    if (!read_elsewhere.count(key)) {
      const std::string quoted = shortened("\"" + key + "\"");
      names += (names.empty() ? "" : ", ") + quoted.substr(1, quoted.size() - 2);
    }
  return names;
}

json config_to_json(const ModelConfig& c) {
  const ModelType& type = find_model_type(c.model_type);
  const std::set<std::string> own(type.settings.begin(), type.settings.end());
  json j = json::parse(c.unknown_keys);
  for_each_field(c, [&](const char* name, const auto& field, const auto&...) {
    if (own.empty() || own.count(name)) j[name] = field_json(field);
  });
  if (c.uses_mla() && c.q_lora_rank == 0) j["q_lora_rank"] = nullptr;
  j["rope_scaling"] = rope_to_json(c.rope_scaling);
  if (type.architecture && !j.contains("architectures")) j["architectures"] = {type.architecture};
  return type.from_settings(std::move(j));
}

std::string describing_type(const ModelConfig& c) {
  if (c.model_type != kOwnType) return c.model_type;
  ModelConfig ours = c;
  ours.unknown_keys = "{}";
  const json wanted = config_to_json(ours);
  for (const ModelType* type : model_types()) {
    if (type->name == ours.model_type) continue;
    ModelConfig theirs = ours;
    theirs.model_type = type->name;
    try {
      ModelConfig read = config_from_json(config_to_json(theirs));
      read.model_type = kOwnType;
      read.unknown_keys = "{}";
      const bool same_rule =
          ours.n_routed_experts == 0 || theirs.moe_spec(0).rule.normalise == ours.moe_spec(0).rule.normalise;
      if (same_rule && config_to_json(read) == wanted) return type->name;
    } catch (const Error&) {  // this type cannot say it
    }
  }
  return kOwnType;
}

}  // namespace birkhoff::model
