// From a model's answer to scores: filters that extract, metrics that compare, as lm-evaluation-harness 0.4.13 has
// them.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace birkhoff::eval {

using Metrics = std::vector<std::pair<std::string, double>>;  // names and values, in the task's order

// What a filter made of an answer, and what that is worth.
struct Judgement {
  std::string filter;     // "none" where the task has none
  std::string extracted;  // of code tasks: the program before its tests
  Metrics metrics;
  bool text_only = false;  // formulas that are not equal as texts and that nothing else could compare: judged wrong
  bool samples = false;    // extracted is one of the samples of a prompt, which the harness keeps as a list
};

// Whether a program ends without an exception (eval/sandbox).
using RunProgram = std::function<bool(const std::string& program)>;

// The "filters" and "metrics" of a task file; what they may hold and what references each metric wants: docs/eval.md.
class Scoring {
 public:
  Scoring();
  // task: the whole task file. Throws Error naming `where`, the field and what it may be.
  static Scoring read(const nlohmann::json& task, const std::string& where);

  std::vector<std::string> metrics() const;  // names
  bool runs_programs() const;
  bool wants_prompt() const;  // the references are {"prompt", "test"}
  // Of a generated answer, cut at its stop strings. run: of tasks that run programs. Thread-safe.
  std::vector<Judgement> judge(const text::chat::Value& references, const std::string& prediction,
                               const RunProgram& run = {}) const;
  // Of a chosen answer: log-likelihoods of the choices in their order; `alone`, those after an empty context, of tasks
  // with acc_mutual_info, else empty.
  bool needs_alone() const;
  Metrics judge_choices(std::span<const double> loglikelihoods, std::span<const std::string> choices, int64_t gold,
                        std::span<const double> alone = {}) const;

 private:
  struct Rules;
  std::shared_ptr<const Rules> rules_;
};

// Cut at the first occurrence of each stop string in turn; empty ones are ignored.
std::string cut_at_stops(std::string text, const std::vector<std::string>& until);

}  // namespace birkhoff::eval
