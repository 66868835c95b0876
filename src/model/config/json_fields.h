// Typed fields from JSON, with errors that name the key and the value. Shared by the settings of models and of
// training.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/names.h"

namespace birkhoff::model {

// Each throws Error("settings", ...) when the value has another type. null, which released files write for "not used"
// (q_lora_rank) and for "as usual" (rope_theta), is 0 for whole numbers and leaves `out` as it is otherwise.
void assign_field(const std::string& key, const nlohmann::json& value, int64_t& out);
void assign_field(const std::string& key, const nlohmann::json& value, double& out);
void assign_field(const std::string& key, const nlohmann::json& value, bool& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::string& out);
void assign_field(const std::string& key, const nlohmann::json& value, std::vector<int64_t>& out);  // null: empty

// A word, by the table of its type: one of names_of<E>(), or an Error with the nearest.
template <HasNames E>
void assign_field(const std::string& key, const nlohmann::json& value, E& out);

// The field of an object, `otherwise` where it is absent or null.
template <class T>
T field_or(const nlohmann::json& object, const char* key, T otherwise);

// "key=value" of a command line. Values are read as JSON where they parse, ".5" as a number, everything else as a word.
// Throws Error.
std::pair<std::string, nlohmann::json> parse_setting(const std::string& text);

// Throws unless value is one of `allowed`; the error lists them and the nearest.
void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& allowed);

// The value that a word stands for. Throws as require_one_of does.
template <HasNames E>
E named(const std::string& key, const std::string& word) {
  const std::optional<E> value = find_named<E>(word);
  if (!value) require_one_of(key, word, names_of<E>());
  return *value;
}

template <HasNames E>
void assign_field(const std::string& key, const nlohmann::json& value, E& out) {
  std::string word = name_of(out);
  assign_field(key, value, word);
  out = named<E>(key, word);
}

// What assign_field reads.
template <class T>
auto field_json(const T& field) {
  if constexpr (HasNames<T>)
    return name_of(field);
  else
    return field;
}

}  // namespace birkhoff::model
