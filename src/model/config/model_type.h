// Released model types: how a type's config.json and its tensor names map onto our settings and layers. A type is one
// file of types/ and its line in model_type.cc; it brings no layers of its own.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/config/config.h"

namespace birkhoff::model {

// What most types have.
namespace types {
nlohmann::json same(nlohmann::json j);
std::vector<std::string> same_name(const ModelConfig& c, const std::string& name);
// Rotary buffers of old files, a tied head, blocks past the model's.
bool common_ignores(const ModelConfig& c, const std::string& file_name);
std::vector<std::pair<std::string, std::string>> no_copies(const ModelConfig& c);
}  // namespace types

struct ModelType {
  const char* name;                    // model_type
  const char* architecture = nullptr;  // for `architectures` of files that have none; null: ours has no class elsewhere
  // Our settings the type has, beyond rope_scaling; empty: all.
  std::vector<std::string> settings = {};
  // What released files leave out. Runs before their keys are read.
  void (*defaults)(ModelConfig& c) = [](ModelConfig&) {};
  // The type's spelling of keys -> ours, and back. Throws Error for what the engine does not compute.
  nlohmann::json (*to_settings)(nlohmann::json config) = types::same;
  nlohmann::json (*from_settings)(nlohmann::json settings) = types::same;
  // Throws Error for settings the type has no place for.
  void (*validate)(const ModelConfig& c) = [](const ModelConfig&) {};
  // Names under which files keep our tensor `name`, the one to write first. Our names are V3's.
  std::vector<std::string> (*file_names)(const ModelConfig& c, const std::string& name) = types::same_name;
  // Tensors of files that are no parameter of the model (buffers, copies).
  bool (*ignores)(const ModelConfig& c, const std::string& file_name) = types::common_ignores;
  // Copies that files of the type carry: {file name, our name}.
  std::vector<std::pair<std::string, std::string>> (*copies)(const ModelConfig& c) = types::no_copies;
  // What the type's usual readers would not open, or "".
  std::string (*note_when_written)(const ModelConfig& c) = [](const ModelConfig&) { return std::string(); };
  bool always_normalises = false;  // weights of experts, of a single one too
  bool fp8_files = false;          // released with FP8 matrices and block factors
};

const std::vector<const ModelType*>& model_types();
// Throws Error with the nearest name.
const ModelType& find_model_type(const std::string& name);
// Throws when the configuration contradicts its own model_type.
void validate_type(const ModelConfig& c);

// Pieces that types share.
namespace types {
inline constexpr const char* kLayers = "model.layers.";
// Number of the block that "model.layers.N.rest" belongs to, with "rest"; -1 for other names.
int64_t block_of(const std::string& name, std::string* rest = nullptr);
std::vector<std::string> common_settings(std::vector<std::string> more);
// Renames a key of an object that has it.
void rename(nlohmann::json& j, const char* from, const char* to);
// Throws unless hidden_act is SiLU and no linear layer has a bias: what every model of the family is.
void require_plain_layers(const nlohmann::json& j);
// Throws Error when a setting that only ours has differs from what the type means; `what` names it.
void require_absent(const ModelConfig& c, bool absent, const char* key, const std::string& value);

// deepseek_v3.cc, for the types that continue it.
std::vector<std::string> deepseek_v3_settings();
void deepseek_v3_defaults(ModelConfig& c);
nlohmann::json deepseek_v3_to_settings(nlohmann::json j);
void deepseek_v3_validate(const ModelConfig& c);
bool deepseek_v3_ignores(const ModelConfig& c, const std::string& file_name);
std::vector<std::pair<std::string, std::string>> deepseek_v3_copies(const ModelConfig& c);

extern const ModelType birkhoff, llama, qwen2, qwen3, mixtral, deepseek, deepseek_v2, deepseek_v3, deepseek_v32,
    deepseek_v4;
}  // namespace types

}  // namespace birkhoff::model
