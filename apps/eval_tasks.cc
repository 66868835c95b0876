#include <algorithm>
#include <cstdio>
#include <sstream>

#include "apps/eval_modes.h"
#include "apps/help.h"
#include "apps/output.h"
#include "checkpoint/content_hash.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/process.h"
#include "eval/evaluation.h"
#include "train/progress.h"

namespace birkhoff::apps {
namespace {

// "3,17"
std::vector<int64_t> document_list(const std::string& text) {
  std::vector<int64_t> ids;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) {
    if (word.empty() || word.size() > 12 || word.find_first_not_of("0123456789") != std::string::npos)
      throw Error("--docs", "\"" + shortened(word) + "\" is no document", "numbers with commas between: 0,3,17",
                  ExitCode::usage);
    ids.push_back(std::stoll(word));
  }
  return ids;
}

void check_flags(const EvalFlags& f) {
  const auto refuse = [](const char* what, const char* hint) { throw Error("eval", what, hint, ExitCode::usage); };
  if (f.out.empty()) refuse("no directory for results", "--out DIR");
  if (f.limit && *f.limit == 0) refuse("--limit 0 leaves no document", "at least 1, or a share such as 0.1");
  if (f.limit && !f.docs.empty()) refuse("both --limit and --docs", "one of them");
  if (f.thinking && !f.chat) refuse("--thinking without --chat", "give both");
  if (!f.chat_template.empty() && !f.chat) refuse("--chat-template without --chat", "give both");
}

// Everything that decides an answer besides the request.
nlohmann::json answer_settings(const EvalFlags& f, const infer::Engine& engine) {
  return {{"dtype", engine.model().compute == f32_t ? "fp32" : "bf16"},
          {"weights", f.weights.matrices},
          {"head_weights", f.weights.head},
          {"cache_type", ops::cache_type_name(engine.caches().type())},
          {"mla", f.caches.mla},
          {"set", f.set},
          {"isa", isa_name(active_isa())}};
}

nlohmann::json settings_of(const EvalFlags& f, const eval::AskOptions& ask, nlohmann::json answers) {
  answers["protocol"] = f.protocol, answers["tasks"] = f.tasks, answers["data_dir"] = f.data_dir;
  answers["sample"] = f.sample, answers["context"] = ask.max_length, answers["seed"] = f.seed;
  answers["chat"] = f.chat, answers["thinking"] = f.thinking, answers["system"] = f.system;
  answers["limit"] = f.limit ? nlohmann::json(*f.limit) : nlohmann::json(), answers["docs"] = f.docs;
  answers["num_fewshot"] = f.shots ? nlohmann::json(*f.shots) : nlohmann::json();
  answers["max_gen"] = f.max_tokens ? nlohmann::json(*f.max_tokens) : nlohmann::json();
  answers["program"] = version_text();
  return answers;
}

// Programs are run by nobody who did not ask for it.
eval::RunProgram program_runner(const EvalFlags& f, const std::vector<eval::AskedTask>& tasks) {
  const auto runs =
      std::find_if(tasks.begin(), tasks.end(), [](const eval::AskedTask& t) { return t.task.scoring.runs_programs(); });
  if (runs == tasks.end()) return {};
  if (!f.allow_code)
    throw Error("eval", runs->task.name + " runs programs that the model writes",
                "--allow-code runs them in a sandbox (docs/eval.md says what holds them)", ExitCode::usage);
  return f.program_runner();
}

int64_t max_length(const EvalFlags& f, const infer::Engine& engine) {
  const int64_t of_model = engine.model().config.max_position_embeddings;
  if (f.context > of_model)
    throw Error("--context", std::to_string(f.context) + " tokens, the model has " + std::to_string(of_model),
                "lower it, or --set max_position_embeddings=...", ExitCode::usage);
  return f.context ? f.context : of_model;
}

// How far it is, over all questions.
class TaskProgress {
 public:
  explicit TaskProgress(const std::vector<eval::AskedTask>& tasks)
      : tasks_(tasks), bar_(count(tasks, tasks.size()), shows_bar(), false, "question") {
    bar_.begin();
  }
  void show(const eval::EvaluationProgress& at) {
    const std::string place =
        at.tasks > 1 ? " (" + std::to_string(at.task + 1) + " of " + std::to_string(at.tasks) + ")" : "";
    bar_.show(count(tasks_, at.task) + at.done, tasks_[at.task].task.name + place);
  }
  void message(const std::string& text) { bar_.message(text); }

 private:
  static int64_t count(const std::vector<eval::AskedTask>& tasks, size_t n) {
    int64_t all = 0;
    for (size_t i = 0; i < n; ++i) all += static_cast<int64_t>(tasks[i].questions.size());
    return all;
  }
  const std::vector<eval::AskedTask>& tasks_;
  train::Progress bar_;
};

}  // namespace

int eval_tasks(const EvalFlags& f, const Program& p) {
  check_flags(f);
  install_stop_handlers("stopping; what was answered is kept, the same command goes on");
  const eval::TaskSet set = eval::open_tasks(f.tasks, f.task_options());
  const auto tasks = eval::questions_of(set, {f.limit, document_list(f.docs)});
  eval::EvaluationOptions o;
  o.run_program = program_runner(f, tasks);
  infer::EngineOptions options = f.engine_options(p, f.context ? f.context : eval::most_tokens(tasks, f.max_tokens));
  // Prompts are read twice where answers are written: to score the right one, and to go on.
  if (std::any_of(tasks.begin(), tasks.end(), [](const eval::AskedTask& t) { return t.task.generates(); }))
    options.caches.prefix_bytes =
        (options.caches.bytes ? options.caches.bytes : static_cast<int64_t>(machine_memory_bytes() / 4)) / 2;
  options.progress = preparing_progress();
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  const infer::TextModel text(engine);
  std::optional<text::chat::ChatFormat> format;
  if (f.chat) format = text::chat::ChatFormat::open(engine.directory(), f.chat_template);
  const nlohmann::json settings = answer_settings(f, engine);
  o.model = {{"path", f.model},
             {"content_hash", checkpoint::content_hash(engine.exec(), engine.directory(), f.adapter)}};
  o.ask = {max_length(f, engine), f.max_tokens, format ? &*format : nullptr, f.thinking,
           o.model.at("content_hash").get<std::string>() + settings.dump()};
  o.settings = settings_of(f, o.ask, settings);
  o.out = f.out, o.answers = f.answers.empty() ? f.out + "/answers" : f.answers;
  TaskProgress progress(tasks);
  o.progress = [&](const eval::EvaluationProgress& at) { progress.show(at); };
  o.warn = [&](const std::string& said) { progress.message(said); };
  const nlohmann::json results = eval::evaluate(engine, text, tasks, set.groups, o, stop_requested());
  if (results.is_null()) return static_cast<int>(ExitCode::interrupted);
  if (f.json)
    write_line(results.dump());
  else
    std::printf("%s", eval::results_table(results).c_str());
  return 0;
}

}  // namespace birkhoff::apps
