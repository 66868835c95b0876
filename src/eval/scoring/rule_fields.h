// Fields of the objects in "filters" and "metrics".
#pragma once
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::eval {

class RuleFields {
 public:
  // Throws Error naming `where` unless rules is an object with no other fields than `known`.
  RuleFields(const nlohmann::json& rules, std::string where, std::initializer_list<const char*> known);
  // Of a field; without it "" / false / none. Throw Error when it is something else.
  std::string text(const std::string& field) const;
  bool flag(const std::string& field) const;
  std::vector<std::string> texts(const std::string& field) const;
  bool has(const std::string& field) const { return rules_.contains(field); }
  const nlohmann::json& at(const std::string& field) const { return rules_.at(field); }
  // What must be given, as in "an array of texts".
  [[noreturn]] void bad(const std::string& field, const std::string& wanted) const;

 private:
  const nlohmann::json& rules_;
  std::string where_;
};

}  // namespace birkhoff::eval
