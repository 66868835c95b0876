// Typed fields from JSON, with errors that name the key and the value. Shared by the settings of models and of training.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace birkhoff::model {

// Each throws Error("settings", ...) when the value has another type. null counts as 0 for whole numbers: released files write it for
// "not used" (q_lora_rank).
void assign_field(const std::string& key, const nlohmann::json& value, int64_t& out);
void assign_field(const std::string& key, const nlohmann::json& value, double& out);
void assign_field(const std::string& key, const nlohmann::json& value, bool& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::string& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::vector<int64_t>& out);  // null: empty

// Throws unless value is one of `allowed`; the error lists them and the nearest.
void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& allowed);

}  // namespace birkhoff::model
