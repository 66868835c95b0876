#include "eval/scoring/filters.h"

#include <memory>
#include <optional>

#include "core/error.h"
#include "eval/scoring/deepseek_math.h"
#include "eval/scoring/program.h"
#include "eval/scoring/python.h"
#include "eval/scoring/rule_fields.h"
#include "text/unicode/python_regex.h"

namespace birkhoff::eval {
namespace {

using nlohmann::json;
using text::PythonRegex;
using text::chat::Value;

// What re.findall gives of a match, of a tuple its first text; none: a tuple of nothing.
std::optional<std::string> found_text(PythonRegex::Groups g) {
  if (g.size() <= 2) return std::string(g.back().value_or(""));
  for (const auto& group : g.subspan(1))
    if (!group.value_or("").empty()) return std::string(*group);
  return std::nullopt;
}

Filter::Step regex_step(const json& step, const std::string& where) {
  const RuleFields fields(step, where, {"regex", "pick", "fallback"});
  const std::string pick = fields.has("pick") ? fields.text("pick") : "first";
  if (pick != "first" && pick != "last") fields.bad("pick", "\"first\" or \"last\"");
  const std::string fallback = fields.has("fallback") ? fields.text("fallback") : "[invalid]";
  const auto regex = std::make_shared<PythonRegex>(fields.text("regex"));
  return [regex, fallback, last = pick == "last"](const std::string& answer, const Value&) {
    std::optional<std::string> found;
    regex->find_all(answer, [&](PythonRegex::Groups g) {
      found = found_text(g);
      return last;
    });
    return stripped(found.value_or(fallback));
  };
}

Filter::Step before_step(const json& step, const std::string& where) {
  const RuleFields fields(step, where, {"before"});
  const std::string text = fields.text("before");
  if (text.empty()) fields.bad("before", "a text that is not empty");
  return [text](const std::string& answer, const Value&) { return answer.substr(0, answer.find(text)); };
}

Filter::Step named_step(const std::string& name, const std::string& where) {
  if (name == "strip") return [](const std::string& answer, const Value&) { return stripped(answer); };
  if (name == "lowercase") return [](const std::string& answer, const Value&) { return lower(answer); };
  if (name == "uppercase") return [](const std::string& answer, const Value&) { return upper(answer); };
  if (name == "prompt")
    return [](const std::string& answer, const Value& references) { return program_prompt(references) + answer; };
  if (name == "deepseek_math")
    return [](const std::string& answer, const Value& references) { return deepseek_math_answers(answer, references); };
  throw Error("eval", where + ": no step is called \"" + name + "\"",
              "there are: strip, lowercase, uppercase, prompt, deepseek_math, {\"regex\": ...}, {\"before\": ...}");
}

Filter::Step read_step(const json& step, const std::string& where) {
  if (step.is_string()) return named_step(step.get<std::string>(), where);
  if (step.is_object() && step.contains("before")) return before_step(step, where);
  if (step.is_object() && step.contains("regex")) return regex_step(step, where);
  throw Error("eval", where + " must be the name of a step, or an object with \"regex\" or \"before\"");
}

Filter read_filter(const json& filter, const std::string& where) {
  const RuleFields fields(filter, where, {"name", "steps"});
  if (fields.text("name").empty()) fields.bad("name", "a text that is not empty");
  Filter out{fields.text("name"), {}, false};
  if (!fields.has("steps") || !fields.at("steps").is_array()) fields.bad("steps", "an array");
  for (const json& step : fields.at("steps")) {
    out.wants_prompt |= step == "prompt";
    out.steps.push_back(read_step(step, where + ", step " + std::to_string(out.steps.size() + 1)));
  }
  return out;
}

}  // namespace

std::vector<Filter> read_filters(const json& task, const std::string& where) {
  if (!task.contains("filters")) return {{"none", {}, false}};
  const json& filters = task.at("filters");
  if (!filters.is_array() || filters.empty()) throw Error("eval", where + ": \"filters\" must be an array, not empty");
  std::vector<Filter> out;
  for (const json& one : filters) {
    out.push_back(read_filter(one, where + ": filter " + std::to_string(out.size() + 1)));
    for (size_t i = 0; i + 1 < out.size(); ++i)
      if (out[i].name == out.back().name)
        throw Error("eval", where + ": two filters are called \"" + out[i].name + "\"");
  }
  return out;
}

}  // namespace birkhoff::eval
