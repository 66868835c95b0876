// Filters of a task: what is taken out of an answer before it is compared.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace birkhoff::eval {

struct Filter {
  using Step = std::function<std::string(const std::string& answer, const text::chat::Value& references)>;
  std::string name;
  std::vector<Step> steps;
  bool wants_prompt = false;
};

// The "filters" of a task file; one named "none" without steps where it has none. Throws Error naming `where`.
std::vector<Filter> read_filters(const nlohmann::json& task, const std::string& where);

}  // namespace birkhoff::eval
