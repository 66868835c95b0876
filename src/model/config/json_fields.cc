#include "model/config/json_fields.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/nearest.h"

namespace birkhoff::model {
namespace {
[[noreturn]] void expected(const std::string& key, const char* what, const nlohmann::json& value) {
  throw Error("settings", key + ": expected " + what + ", got " + value.dump());
}
}  // namespace

void assign_field(const std::string& key, const nlohmann::json& v, int64_t& out) {
  if (v.is_null()) {
    out = 0;
    return;
  }
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (!v.is_number() || v.get<double>() != std::floor(v.get<double>()) || std::abs(v.get<double>()) > kExact)
    expected(key, "a whole number", v);
  out = v.is_number_integer() ? v.get<int64_t>() : static_cast<int64_t>(v.get<double>());
}
void assign_field(const std::string& key, const nlohmann::json& v, double& out) {
  if (v.is_null()) return;
  if (!v.is_number()) expected(key, "a number", v);
  out = v.get<double>();
}
void assign_field(const std::string& key, const nlohmann::json& v, bool& out) {
  if (v.is_null()) return;
  if (!v.is_boolean()) expected(key, "true or false", v);
  out = v.get<bool>();
}
void assign_field(const std::string& key, const nlohmann::json& v, std::string& out) {
  if (v.is_null()) return;
  if (!v.is_string()) expected(key, "a word", v);
  out = v.get<std::string>();
}

void assign_field(const std::string& key, const nlohmann::json& v, std::vector<int64_t>& out) {
  if (!v.is_array() && !v.is_null()) expected(key, "a list of whole numbers", v);
  out.clear();
  for (const auto& element : v) {
    if (element.is_null()) expected(key, "a list of whole numbers", v);
    out.emplace_back();
    assign_field(key, element, out.back());
  }
}

std::pair<std::string, nlohmann::json> parse_setting(const std::string& text) {
  const size_t equal = text.find('=');
  if (equal == std::string::npos || equal == 0)
    throw Error("settings", "--set " + text + ": expected key=value", "", ExitCode::usage);
  const std::string key = text.substr(0, equal), value = text.substr(equal + 1);
  if (key == "trainable" || key == "lora.targets") return {key, value};  // an expression may look like a list
  nlohmann::json v = nlohmann::json::parse(value, nullptr, false);
  if (!v.is_discarded()) return {key, std::move(v)};
  // ".5", "5." and "+5" are numbers to a reader; hexadecimal, "inf" and "nan", which strtod takes too, are words.
  if (!value.empty() && value.find_first_not_of("0123456789+-.eE") == std::string::npos) {
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    if (*end == 0 && std::isfinite(number)) return {key, number};
  }
  return {key, value};
}

template <class T>
T field_or(const nlohmann::json& object, const char* key, T otherwise) {
  if (!object.is_object())
    throw Error("settings", std::string(key) + ": expected inside an object, got " + object.dump());
  if (const auto at = object.find(key); at != object.end() && !at->is_null()) assign_field(key, *at, otherwise);
  return otherwise;
}
template int64_t field_or(const nlohmann::json&, const char*, int64_t);
template std::string field_or(const nlohmann::json&, const char*, std::string);

void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (const auto& a : allowed) list += (list.empty() ? "" : ", ") + a;
  const std::string near = nearest(value, allowed);
  throw Error("settings",
              key + ": unknown value \"" + value + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"),
              "one of " + list);
}

}  // namespace birkhoff::model
