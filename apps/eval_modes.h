// What `eval` does: loss on text, tasks, and what belongs to them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "apps/verbs.h"
#include "eval/tasks/task.h"

namespace birkhoff::apps {

struct EvalFlags {
  WeightFlags weights;
  CacheFlags caches;
  std::string model, adapter, dtype;
  std::vector<std::string> set;
  bool json = false;

  // Loss.
  std::vector<std::string> data;
  int64_t seq_len = 0;
  bool validation = false;

  // Tasks.
  std::vector<std::string> tasks;
  std::string data_dir, protocol = "harness", out, answers, docs, system, chat_template;
  std::optional<int64_t> shots, max_tokens;
  std::optional<double> limit;
  int64_t context = 0;
  uint64_t seed = 1234;
  bool sample = false, allow_code = false, chat = false, thinking = false, list = false, score = false, jsonl = false;
  std::vector<std::string> compare;

  // Opens the model as the flags say, for texts of so many tokens at least. Throws Error.
  infer::EngineOptions engine_options(const Program& p, int64_t positions) const;
  eval::TaskOptions task_options() const;
  // Says on stderr what holds programs. Throws Error: no sandbox.
  eval::RunProgram program_runner() const;
};

// Each returns the exit code and throws Error.
int eval_loss(const EvalFlags& f, const Program& p);
int eval_tasks(const EvalFlags& f, const Program& p);
int list_eval_tasks(const EvalFlags& f);
int score_answers(const EvalFlags& f);
int compare_evaluations(const EvalFlags& f);

}  // namespace birkhoff::apps
