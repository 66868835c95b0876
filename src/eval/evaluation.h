// Tasks asked of a model, and everything that is written about it: results.json, samples_TASK.jsonl, report.html.
#pragma once
#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/task_run.h"

namespace birkhoff::eval {

struct EvaluationProgress {
  size_t task = 0, tasks = 0;  // which, of how many
  int64_t done = 0;            // of its questions
};

// A task with what will be asked.
struct AskedTask {
  Task task;
  std::vector<Question> questions;
};
// Throws Error as Task::questions; no document is selected.
std::vector<AskedTask> questions_of(const TaskSet& set, const Selection& selection);
// No question with its answer has more tokens, for which there is no tokenizer yet: none is shorter than a byte. Those
// that chat formats write around turns are allowed for.
int64_t most_tokens(const std::vector<AskedTask>& tasks, const std::optional<int64_t>& max_tokens);

struct EvaluationOptions {
  AskOptions ask;
  std::string out;                 // directory, created; its results are replaced
  std::string answers;             // directory of answers that are kept; may be shared by runs
  nlohmann::json settings, model;  // go into results.json as they are
  RunProgram run_program;          // of tasks that run programs
  std::function<void(const EvaluationProgress&)> progress = [](const EvaluationProgress&) {};
  std::function<void(const std::string&)> warn = [](const std::string&) {};  // what a reader of scores should know
};

// results.json: {"results": {TASK: {METRIC: value, METRIC_stderr: value or "N/A", "n", "version", "num_fewshot", ...}},
// "groups", "model", "settings", ...}; of several filters the first has the plain names, and every value stands under
// "METRIC,FILTER" too, as lm-evaluation-harness writes it. docs/eval.md names all keys. null: cancelled; what was
// answered is kept. Throws Error.
nlohmann::json evaluate(const infer::Engine& engine, const infer::TextModel& text, const std::vector<AskedTask>& tasks,
                        const std::vector<TaskGroup>& groups, const EvaluationOptions& options,
                        const std::atomic<bool>& cancel);

// The scores as a table for a terminal.
std::string results_table(const nlohmann::json& results);

}  // namespace birkhoff::eval
