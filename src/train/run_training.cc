#include "train/run_training.h"

#include <cstdio>
#include <filesystem>

#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "data/documents.h"
#include "io/user_files.h"
#include "model/config/notes.h"
#include "report/report.h"
#include "report/run_data.h"
#include "train/pretraining.h"
#include "train/run.h"
#include "train/run_data.h"
#include "train/run_settings.h"
#include "train/run_tokenizer.h"
#include "train/sample_text.h"

namespace birkhoff::train {
namespace {

std::string absolute(const std::string& path) {
  return path.empty() ? "" : std::filesystem::absolute(path).lexically_normal().string();
}

// What a run starts or goes on with.
struct Prepared {
  TrainOptions options;
  std::vector<std::string> notes;
  std::unique_ptr<RunDirectory> directory;
  RunConfig config;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  RunData data;
};

void resume_run(Prepared& p) {
  TrainOptions& o = p.options;
  if (!o.init.empty())
    throw Error("train", "--init and --resume together", "--init starts a new run, --resume goes on with one",
                ExitCode::usage);
  for (const auto& [flag, value] :
       {std::pair{"--tokenizer", &o.tokenizer}, {"--template", &o.chat_template}, {"--encoder", &o.chat_encoder}})
    if (!value->empty())
      throw Error("resume",
                  std::string(flag) + ": a run keeps the " + (value == &o.tokenizer ? "tokenizer" : "chat format") +
                      " it was started with",
                  "leave it out", ExitCode::usage);
  if (text::Tokenizer::exists(o.out)) p.tokenizer = text::Tokenizer::open(o.out);
  p.directory = std::make_unique<RunDirectory>(o.out, RunDirectory::Open::resume);
  p.config = resumed_config(o, *p.directory, p.notes);
  take_up(p.directory->file("run.json"), o, p.notes);
  p.data = open_run_data(o, p.config, p.tokenizer, o.out);
}

// Everything that can be refused is refused before the directory comes into being.
void start_run(Prepared& p) {
  TrainOptions& o = p.options;
  const std::string init = o.init.empty() ? "" : checkpoint::resolve_model_directory(o.init);
  if (!o.tokenizer.empty())
    p.tokenizer = open_tokenizer(o.tokenizer);
  else if (!init.empty() && text::Tokenizer::exists(init))
    p.tokenizer = text::Tokenizer::open(init);
  if (init.empty()) fit_vocabulary(p.tokenizer.get(), o.settings_base, o.settings_set);
  p.config = init.empty() ? make_run_config(o.settings_base, o.settings_set) : further_config(o, init, p.notes);
  if (o.data.empty()) throw Error("train", "no data", "give --data PATH", ExitCode::usage);
  check_vocabulary(p.tokenizer.get(), p.config);
  for (const auto* list : {&o.data, &o.validation})
    for (const std::string& argument : *list) io::check_not_an_input(o.out, {data::split_weight(argument).first});
  p.data = open_run_data(o, p.config, p.tokenizer, o.tokenizer.empty() ? init : o.tokenizer);
  model::require_fits(plan_run(p.config, o.threads));
  p.directory = std::make_unique<RunDirectory>(o.out, RunDirectory::Open::fresh);
  if (!p.tokenizer) return;
  copy_tokenizer(*p.tokenizer, p.directory->path());
  keep_chat_format(o, p.data, p.directory->path(), p.config);
  p.tokenizer = text::Tokenizer::open(p.directory->path());
}

}  // namespace

int run_training(const TrainOptions& options, const std::atomic<bool>& stop) {
  Prepared p;
  p.options = options;
  if (options.resume)
    resume_run(p);
  else
    start_run(p);
  const RunDirectory& directory = *p.directory;
  for (auto of : {model::reading_notes, model::writing_notes})
    for (std::string& note : of(p.config.model)) p.notes.push_back(std::move(note));
  for (const auto* paths : {&p.data.training, &p.data.validation})
    for (std::string& note : data::unread_folders(*paths)) p.notes.push_back(std::move(note));
  for (const auto& n : p.notes) std::fprintf(stderr, "birkhoff: %s\n", n.c_str());
  if (const std::string keys = model::unknown_key_names(p.config.model); !keys.empty())
    std::fprintf(stderr, "birkhoff: kept in config.json, not used: %s\n", keys.c_str());
  std::string sample;
  try {
    Pretraining stage(p.config, std::move(p.data), options.threads);
    Run run({p.config, p.tokenizer, absolute(p.options.init), options.command_line, options.threads, options.resume,
             options.terminal, options.quiet},
            *p.directory, stage);
    if (const int code = run.execute(stop)) {
      report_unfinished(directory);
      return code;
    }
    if (report::read_metrics(directory.file("metrics.jsonl")).empty()) return 0;  // no step, nothing to report on
    model::set_indexer_training(stage.state().model(), {});  // what is sampled attends as the saved model will
    const infer::Engine lent(stage.state().model(), stage.state().exec(),
                             checkpoint::resolve_model_directory(directory.path()));
    sample = sample_text(lent, p.config.train.seq_len);
  } catch (const Error&) {
    report_unfinished(directory);
    throw;
  }
  report::write_report(directory.path(), sample);
  std::fprintf(stderr, "birkhoff: report: %s\n", directory.file("report.html").c_str());
  return 0;
}

}  // namespace birkhoff::train
