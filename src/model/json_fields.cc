#include "model/json_fields.h"

#include <algorithm>
#include <cmath>
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
  if (!v.is_number() || v.get<double>() != std::floor(v.get<double>()) || std::abs(v.get<double>()) > kExact) expected(key, "a whole number", v);
  out = v.is_number_integer() ? v.get<int64_t>() : static_cast<int64_t>(v.get<double>());
}
void assign_field(const std::string& key, const nlohmann::json& v, double& out) {
  if (!v.is_number()) expected(key, "a number", v);
  out = v.get<double>();
}
void assign_field(const std::string& key, const nlohmann::json& v, bool& out) {
  if (!v.is_boolean()) expected(key, "true or false", v);
  out = v.get<bool>();
}
void assign_field(const std::string& key, const nlohmann::json& v, std::string& out) {
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

void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (const auto& a : allowed) list += (list.empty() ? "" : ", ") + a;
  const std::string near = nearest(value, allowed);
  throw Error("settings", key + ": unknown value \"" + value + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"), "one of " + list);
}

}  // namespace birkhoff::model
