// Typed fields from JSON, with errors that name the key and the value. Shared by the settings of models and of
// training.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace birkhoff::model {

// Each throws Error("settings", ...) when the value has another type. null, which released files write for "not used"
// (q_lora_rank) and for "as usual" (rope_theta), is 0 for whole numbers and leaves `out` as it is otherwise.
void assign_field(const std::string& key, const nlohmann::json& value, int64_t& out);
void assign_field(const std::string& key, const nlohmann::json& value, double& out);
void assign_field(const std::string& key, const nlohmann::json& value, bool& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::string& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::vector<int64_t>& out);  // null: empty

// The field of an object, `otherwise` where it is absent or null.
template <class T>
T field_or(const nlohmann::json& object, const char* key, T otherwise);

// "key=value" of a command line. Values are read as JSON where they parse, ".5" as a number, everything else as a word.
// Throws Error.
std::pair<std::string, nlohmann::json> parse_setting(const std::string& text);

// Throws unless value is one of `allowed`; the error lists them and the nearest.
void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& allowed);

}  // namespace birkhoff::model
