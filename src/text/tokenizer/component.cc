#include "text/tokenizer/component.h"

#include "core/error.h"
#include "core/nearest.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {

using nlohmann::json;

Component::Component(std::string kind, const json& entry) : kind_(std::move(kind)), entry_(entry) {
  if (!entry.is_object() || !entry.contains("type") || !entry.at("type").is_string())
    throw Error("tokenizer", kind_ + ": expected an object with a \"type\", found " + entry.dump().substr(0, 80));
  type_ = entry.at("type").get<std::string>();
}

void Component::unknown(const std::vector<std::string>& known) const {
  std::string list;
  for (const auto& k : known) list += (list.empty() ? "" : ", ") + k;
  const std::string near = nearest(type_, known);
  throw Error("tokenizer", kind_ + " \"" + type_ + "\" is not known",
              (near.empty() ? "" : "nearest: " + near + "; ") + "known: " + list);
}

void Component::bad(const char* name, const std::string& expected) const {
  const std::string found = entry_.contains(name)
                                ? entry_.at(name).dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 80)
                                : "nothing";
  throw Error("tokenizer", kind_ + " " + type_ + ": \"" + name + "\" must be " + expected + ", is " + found);
}

const json& Component::field(const char* name) const {
  if (!entry_.contains(name)) bad(name, "given");
  return entry_.at(name);
}

bool Component::flag(const char* name) const {
  if (!field(name).is_boolean()) bad(name, "true or false");
  return field(name).get<bool>();
}

std::string Component::text(const char* name) const {
  if (!field(name).is_string()) bad(name, "a string");
  return field(name).get<std::string>();
}

std::string Component::character(const char* name) const {
  std::string s = text(name);
  const char* p = s.data();
  if (!s.empty()) next_char(p);
  if (s.empty() || p != s.data() + s.size()) bad(name, "one character");
  return s;
}

uint32_t Component::count(const char* name) const {
  if (!field(name).is_number_unsigned() || field(name).get<uint64_t>() > UINT32_MAX) bad(name, "a count");
  return field(name).get<uint32_t>();
}

const json& Component::list(const char* name) const {
  if (!field(name).is_array()) bad(name, "a list");
  return field(name);
}

std::unique_ptr<Matcher> Component::pattern(const char* name) const {
  const json& p = field(name);
  if (p.is_object() && p.size() == 1) {
    if (p.contains("String") && p.at("String").is_string())
      return make_literal_matcher(p.at("String").get<std::string>());
    if (p.contains("Regex") && p.at("Regex").is_string()) return make_regex_matcher(p.at("Regex").get<std::string>());
  }
  bad(name, "{\"String\": ...} or {\"Regex\": ...}");
}

}  // namespace birkhoff::text
