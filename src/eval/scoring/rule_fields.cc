#include "eval/scoring/rule_fields.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::eval {

RuleFields::RuleFields(const nlohmann::json& rules, std::string where, std::initializer_list<const char*> known)
    : rules_(rules), where_(std::move(where)) {
  std::string names;
  for (const char* k : known) names += (names.empty() ? "" : ", ") + std::string(k);
  if (!rules.is_object()) throw Error("eval", where_ + " must be an object with: " + names);
  for (const auto& [field, value] : rules.items())
    if (std::none_of(known.begin(), known.end(), [&f = field](const char* k) { return f == k; }))
      throw Error("eval", where_ + " has no field \"" + field + "\"", "there are: " + names);
}

std::string RuleFields::text(const std::string& field) const {
  if (!has(field)) return "";
  if (!at(field).is_string()) bad(field, "a text");
  return at(field).get<std::string>();
}

bool RuleFields::flag(const std::string& field) const {
  if (!has(field)) return false;
  if (!at(field).is_boolean()) bad(field, "true or false");
  return at(field).get<bool>();
}

std::vector<std::string> RuleFields::texts(const std::string& field) const {
  std::vector<std::string> out;
  if (!has(field)) return out;
  if (!at(field).is_array()) bad(field, "an array of texts");
  for (const nlohmann::json& one : at(field)) {
    if (!one.is_string()) bad(field, "an array of texts");
    out.push_back(one.get<std::string>());
  }
  return out;
}

void RuleFields::bad(const std::string& field, const std::string& wanted) const {
  throw Error(
      "eval",
      where_ + ": \"" + field + "\" must be " + wanted +
          (has(field) ? ", not " + at(field).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) : ""));
}

}  // namespace birkhoff::eval
