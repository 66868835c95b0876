// Reading the components of tokenizer.json: fields with errors that name component, field and value.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/unicode/matcher.h"

namespace birkhoff::text {

class Component {
 public:
  // kind: "pre_tokenizer", ...; entry: an object with a string "type". Throws Error otherwise.
  Component(std::string kind, const nlohmann::json& entry);
  const std::string& type() const { return type_; }
  bool has(const char* field) const { return entry_.contains(field) && !entry_.at(field).is_null(); }
  bool flag(const char* field) const;
  bool flag(const char* field, bool fallback) const { return has(field) ? flag(field) : fallback; }
  std::string text(const char* field) const;
  std::string text(const char* field, const char* fallback) const { return has(field) ? text(field) : fallback; }
  std::string character(const char* field) const;  // a string of one code point
  uint32_t count(const char* field) const;         // 0 .. 2^32-1
  const nlohmann::json& list(const char* field) const;
  const nlohmann::json& field(const char* name) const;
  std::unique_ptr<Matcher> pattern(const char* field) const;                    // {"String": s} or {"Regex": r}
  [[noreturn]] void unknown(const std::vector<std::string>& known) const;       // the type is none of these
  [[noreturn]] void bad(const char* field, const std::string& expected) const;  // names the value found

 private:
  std::string kind_, type_;
  const nlohmann::json& entry_;
};

}  // namespace birkhoff::text
