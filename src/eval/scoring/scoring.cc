#include "eval/scoring/scoring.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "eval/scoring/choices.h"
#include "eval/scoring/filters.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/rule_fields.h"
#include "text/unicode/utf8.h"

namespace birkhoff::eval {

using nlohmann::json;
using text::chat::Kind;
using text::chat::Value;

struct Scoring::Rules {
  std::vector<Filter> filters{{"none", {}, false}};
  std::vector<std::unique_ptr<const Metric>> of_answers;
  std::vector<ChoiceMetric> of_choices;
};

namespace {

std::unique_ptr<Metric> metric_of_answers(const std::string& name, const json& rules, const std::string& where) {
  if (name == "exact_match") return exact_match_metric(rules, where);
  if (name == "pass@1" || name == "pass_at_1") return program_metric(rules, where);
  const RuleFields fields(rules, where, {"name"});
  if (name == "drop") return drop_metric();
  if (name == "hendrycks_math") return hendrycks_math_metric();
  if (name == "minerva_math") return minerva_math_metric();
  if (name == "deepseek_math") return deepseek_math_metric();
  throw Error("eval", where + ": no metric is called \"" + name + "\"",
              "there are: acc, acc_norm, acc_bytes, acc_mutual_info, exact_match, drop, hendrycks_math, minerva_math, "
              "deepseek_math, pass@1, pass_at_1");
}

}  // namespace

Scoring::Scoring() : rules_(std::make_shared<Rules>()) {}

Scoring Scoring::read(const json& task, const std::string& where) {
  auto rules = std::make_shared<Rules>();
  rules->filters = read_filters(task, where);
  const json metrics = task.value("metrics", json());
  if (!metrics.is_array() || metrics.empty()) throw Error("eval", where + ": \"metrics\" must be an array, not empty");
  size_t number = 0;
  for (const json& one : metrics) {
    const std::string place = where + ": metric " + std::to_string(++number);
    const std::string name = one.is_object() && one.contains("name") && one.at("name").is_string()
                                 ? one.at("name").get<std::string>()
                                 : throw Error("eval", place + " must be an object with a \"name\"");
    const auto choice = std::find(std::begin(kChoiceMetrics), std::end(kChoiceMetrics), name);
    if (choice == std::end(kChoiceMetrics)) {
      rules->of_answers.push_back(metric_of_answers(name, one, place));
    } else {
      const RuleFields fields(one, place, {"name"});
      rules->of_choices.push_back(static_cast<ChoiceMetric>(choice - std::begin(kChoiceMetrics)));
    }
  }
  if (!rules->of_answers.empty() && !rules->of_choices.empty())
    throw Error("eval", where + ": answers are either chosen or generated, \"metrics\" has some of each kind");
  Scoring out;
  out.rules_ = std::move(rules);
  const std::vector<std::string> names = out.metrics();
  for (size_t i = 0; i < names.size(); ++i)
    if (std::find(names.begin() + static_cast<int64_t>(i) + 1, names.end(), names[i]) != names.end())
      throw Error("eval", where + ": two metrics give \"" + names[i] + "\"");
  return out;
}

std::vector<std::string> Scoring::metrics() const {
  std::vector<std::string> names;
  for (const ChoiceMetric m : rules_->of_choices) names.push_back(kChoiceMetrics[static_cast<size_t>(m)]);
  for (const auto& m : rules_->of_answers)
    for (const std::string& n : m->names()) names.push_back(n);
  return names;
}

bool Scoring::runs_programs() const {
  return std::any_of(rules_->of_answers.begin(), rules_->of_answers.end(),
                     [](const auto& m) { return m->runs_programs(); });
}

bool Scoring::wants_prompt() const {
  return std::any_of(rules_->filters.begin(), rules_->filters.end(), [](const Filter& f) { return f.wants_prompt; });
}

std::vector<Judgement> Scoring::judge(const Value& references, const std::string& prediction,
                                      const RunProgram& run) const {
  std::vector<Judgement> out;
  for (const Filter& f : rules_->filters) {
    Judgement j{f.name, text::replace_invalid(prediction), {}, false, f.wants_prompt};
    for (const Filter::Step& step : f.steps) j.extracted = step(j.extracted, references);
    for (const auto& m : rules_->of_answers) m->judge(references, run, j);
    out.push_back(std::move(j));
  }
  return out;
}

bool Scoring::needs_alone() const {
  const auto& m = rules_->of_choices;
  return std::find(m.begin(), m.end(), ChoiceMetric::acc_mutual_info) != m.end();
}

Metrics Scoring::judge_choices(std::span<const double> loglikelihoods, std::span<const std::string> choices,
                               int64_t gold, std::span<const double> alone) const {
  BK_CHECK(!choices.empty());
  BK_CHECK_EQ(loglikelihoods.size(), choices.size());
  if (needs_alone()) BK_CHECK_EQ(alone.size(), choices.size());
  Metrics out;
  for (const ChoiceMetric m : rules_->of_choices)
    out.emplace_back(kChoiceMetrics[static_cast<size_t>(m)],
                     chosen(m, {loglikelihoods, choices, alone}) == gold ? 1. : 0.);
  return out;
}

const std::string& one_text(const Value& references) {
  if (!references.is(Kind::string)) throw Error("eval", "the references must be a text");
  return references.bytes();
}

std::vector<std::string> some_texts(const Value& references) {
  if (references.is(Kind::string)) return {references.bytes()};
  if (!references.is_sequence()) throw Error("eval", "the references must be a text or a list of texts");
  std::vector<std::string> out;
  for (const Value& one : references.items()) out.push_back(one_text(one));
  return out;
}

std::string cut_at_stops(std::string text, const std::vector<std::string>& until) {
  for (const std::string& stop : until)
    if (!stop.empty()) text.erase(std::min(text.find(stop), text.size()));
  return text;
}

}  // namespace birkhoff::eval
