#include "train/run.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "checkpoint/adapter.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_directory.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/process.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "model/config/inventory.h"
#include "report/report.h"

namespace birkhoff::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr int64_t kRunValidationWindows = 32;  // the fixed sample during a run

json to_json(const RunPosition& p) {
  return {{"step", p.step},
          {"tokens", p.tokens},
          {"best_step", p.best_step},
          {"best_val", std::isfinite(p.best_val) ? json(p.best_val) : json(nullptr)},
          {"train_seconds", p.train_seconds}};
}
RunPosition position_from(const json& j, const std::string& file) {
  try {
    RunPosition p;
    p.step = j.at("step");
    p.tokens = j.at("tokens");
    p.best_step = j.at("best_step");
    if (!j.at("best_val").is_null()) p.best_val = j.at("best_val");
    p.train_seconds = j.at("train_seconds");
    return p;
  } catch (const json::exception& e) {
    throw Error("resume", file + ": " + e.what(),
                "it was edited; resume from an older checkpoint by removing this one");
  }
}

// The weights of a directory; a checkpoint that was trained with adapters gives both together.
void load_whole(const std::string& directory, model::Model& m) {
  checkpoint::load_weights(directory, m);
  if (!checkpoint::has_adapter(directory)) return;
  const checkpoint::AdapterFiles adapter(directory, m.config);
  for (const model::ParameterInfo& p : m.parameters)
    adapter.add_to(p.name, 0, Mat(m.block + p.offset, f32_t, p.rows, p.cols));
}

// The setting that most likely made a run leave the finite numbers.
std::string likely_cause(const TrainConfig& c) {
  if (c.z_loss >= 1) return "z_loss";
  if (c.lr * c.weight_decay >= 1) return "weight_decay";
  for (const auto& [key, value] : {std::pair{"aux_expert", c.aux_expert},
                                   {"aux_device", c.aux_device},
                                   {"aux_communication", c.aux_communication},
                                   {"aux_sequence", c.aux_sequence},
                                   {"aux_mixtral", c.aux_mixtral},
                                   {"mtp_loss", c.mtp_loss},
                                   {"indexer_kl", c.indexer_kl}})
    if (std::abs(value) >= 1e3) return key;
  return "lr";
}

}  // namespace

Run::Run(RunSetup setup, RunDirectory& directory, Stage& stage)
    : setup_(std::move(setup)),
      dir_(directory),
      stage_(stage),
      progress_(setup_.config.train.steps, setup_.terminal, setup_.quiet) {}

void Run::start_or_resume() {
  TrainState& state = stage_.state();
  if (setup_.resume && checkpoint::has_checkpoints(dir_.path())) {
    std::string note;
    const std::string from = checkpoint::newest_good_checkpoint(dir_.path(), &note);
    if (!note.empty()) say(note);
    load_checkpoint(from);
    say("resumed " + from + " at step " + std::to_string(at_.step));
  } else {
    if (setup_.resume) say("no finished checkpoint: starting at step 0");
    if (setup_.base_model.empty()) {
      state.initialise();
    } else {
      const std::string from = checkpoint::resolve_model_directory(setup_.base_model);
      state.initialise([&](model::Model& m) { load_whole(from, m); });
      keep_source(from);
    }
  }
  metrics_ = std::make_unique<MetricsWriter>(dir_.file("metrics.jsonl"), at_.step);
  write_run_json("running");
}

void Run::load_checkpoint(const std::string& directory) {
  TrainState& state = stage_.state();
  checkpoint::TrainerState saved{state.moment1(), state.moment2(), state.moment_elements(), {}, {}, setup_.base_model};
  checkpoint::load_checkpoint(directory, state.model(), saved);
  state.model().refresh(state.exec());
  if (!setup_.base_model.empty()) keep_source(directory);
  at_ = position_from(saved.position, directory + "/trainer_state/position.json");
  saved_step_ = at_.step;
  if (saved.position.contains("stage")) stage_.go_on_from(saved.position["stage"]);
}

void Run::keep_source(const std::string& directory) {
  source_ = std::make_unique<Source>(directory);
  const model::Model& m = stage_.state().model();
  source_->map = checkpoint::match_tensors(source_->files, m.config, m.parameters);
}

// True when the weights are the best so far by validation loss.
bool Run::measure(StepRecord& r) {
  const TrainConfig& c = setup_.config.train;
  bool best = false;
  if (due(c.eval_every)) {
    r.val_loss = stage_.evaluate(kRunValidationWindows);
    best = *r.val_loss < at_.best_val;
    if (best) {
      at_.best_val = *r.val_loss;
      at_.best_step = at_.step;
    }
  }
  if (due(c.gain_every)) r.gain = stage_.gains();
  return best;
}

// Nothing that is not finite is trained on or saved.
void Run::stop_not_finite(int64_t step, const std::string& what, const std::string& tensor) const {
  const std::string cause = likely_cause(setup_.config.train);
  const std::string remedy = "lower " + cause;
  throw Error("train",
              "step " + std::to_string(step) + ": " + what + (tensor.empty() ? "" : "; first bad tensor: " + tensor),
              saved_step_ >= 0
                  ? "the last good checkpoint is " + dir_.path() + "/checkpoints/step-" + std::to_string(saved_step_) +
                        "; " + remedy + (cause == "lr" ? " or set grad_clip" : "") + " and --resume"
                  : "there is no checkpoint yet; " + remedy + (cause == "lr" ? " or set checkpoint_every" : ""),
              ExitCode::failed);
}

void Run::check_finite(const StepRecord& r) const {
  if (std::isfinite(r.loss) && std::isfinite(r.grad_norm)) return;
  stop_not_finite(at_.step + 1, std::isfinite(r.loss) ? "the gradient norm is not finite" : "the loss is not finite",
                  stage_.state().first_bad_tensor());
}

// Files that were removed under a run would take what is written from then on with them.
void Run::require_directory() const {
  if (!io::exists(dir_.file("config.json")))
    throw Error(
        "run",
        dir_.path() + ": the directory of the run was removed while it trained, at step " + std::to_string(at_.step),
        "what it had learnt is lost; start again");
}

bool Run::checkpoint_is_late() const {
  const double minutes = setup_.config.train.checkpoint_minutes;
  return minutes > 0 && std::chrono::duration<double>(Clock::now() - saved_at_).count() >= 60 * minutes;
}

void Run::save() {
  if (saved_step_ == at_.step) return;
  require_directory();
  TrainState& state = stage_.state();
  if (const std::string tensor = state.first_bad_tensor(); !tensor.empty())
    stop_not_finite(at_.step, "a weight is not finite, nothing is saved", tensor);
  json position = to_json(at_);
  if (const json own = stage_.position(); !own.is_null()) position["stage"] = own;
  checkpoint::TrainerState saved{state.moment1(),
                                 state.moment2(),
                                 state.moment_elements(),
                                 position,
                                 setup_.tokenizer ? setup_.tokenizer->files() : std::vector<std::string>{},
                                 setup_.base_model,
                                 source_ ? &source_->map : nullptr};
  json config = run_config_to_json(setup_.config);
  if (setup_.tokenizer) {  // so that other programs know where a text ends
    if (setup_.tokenizer->bos()) config["bos_token_id"] = *setup_.tokenizer->bos();
    if (setup_.tokenizer->eos()) config["eos_token_id"] = *setup_.tokenizer->eos();
  }
  checkpoint::save_checkpoint(dir_.path(), at_.step, state.model(), config, saved);
  saved_step_ = at_.step;
  saved_at_ = Clock::now();
  checkpoint::prune_checkpoints(dir_.path(), setup_.config.train.keep,
                                setup_.config.train.keep_best ? at_.best_step : -1);
}

void Run::write_run_json(const std::string& status, std::optional<double> final_val_loss) const {
  const model::Inventory v = model::take_inventory(setup_.config.model);
  char when[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  json run = {{"status", status},
              {"command", setup_.command_line},
              {"time", when},
              {"init", setup_.base_model},
              {"threads", setup_.threads},
              {"cpu", cpu_model()},
              {"isa", isa_name(active_isa())},
              {"parameters", v.total},
              {"active_parameters", v.active_with_embedding},
              {"planned_mib", stage_.state().plan().total() >> 20},
              {"position", to_json(at_)}};
  stage_.describe(run);
  if (final_val_loss) run["final_val_loss"] = *final_val_loss;
  io::write_json(dir_.file("run.json"), run);
}

void Run::take_step() {
  const TrainConfig& c = setup_.config.train;
  auto& work = stage_.state().exec().seconds();
  work.fill(0);
  const auto start = Clock::now();
  StepRecord r = stage_.step(at_.step);
  r.step_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  check_finite(r);
  require_directory();
  r.tokens_per_s = static_cast<double>(r.tokens) / r.step_ms * 1e3;
  r.gemm_share = work[static_cast<size_t>(Work::gemm)] * 1e3 / r.step_ms;
  r.rss_mib = peak_rss_mib();
  ++at_.step;
  const int64_t tokens = r.tokens;
  at_.tokens += tokens;
  at_.train_seconds += r.step_ms / 1e3;
  r.step = at_.step;
  r.tokens = at_.tokens;
  if (!due(c.gain_every) && at_.step != c.steps) r.expert_load.clear();
  const bool best = measure(r);
  metrics_->write(r);  // before the checkpoint: a run killed in between takes the step again and writes it again
  progress_.step(at_.step, r.loss, tokens, r.step_ms / 1e3, r.val_loss);
  if (due(c.checkpoint_every) || (best && c.keep_best) || checkpoint_is_late()) save();
}

int Run::execute(const std::atomic<bool>& stop) {
  const TrainConfig& c = setup_.config.train;
  // config.json makes the directory a run, which can be resumed from then on: what it was started with is there first.
  if (!setup_.resume) write_run_json("running");
  io::write_json(dir_.file("config.json"), run_config_to_json(setup_.config));
  for (const std::string& line : stage_.introduction())
    say(line);  // before weights are made or read: that takes a while
  start_or_resume();
  if (at_.step >= c.steps && at_.step > 0)
    say("the run is at step " + std::to_string(at_.step) + " of " + std::to_string(c.steps) +
        ": nothing is left to train");
  progress_.begin(at_.step);
  saved_at_ = Clock::now();
  while (at_.step < c.steps && !stop) take_step();
  if (at_.step < c.steps) {
    save();
    write_run_json("interrupted");
    say("interrupted at step " + std::to_string(at_.step) + ", saved. Go on with: birkhoff train --resume --out " +
        dir_.path());
    return static_cast<int>(ExitCode::interrupted);
  }
  finish();
  return 0;
}

void Run::finish() {
  save();
  const double val = stage_.evaluate(0);
  char text[160];
  std::snprintf(text, sizeof text, "done: %lld steps in %.1f s of training, validation loss %.4f nats/token",
                static_cast<long long>(at_.step), at_.train_seconds, val);
  say(text);
  write_run_json("done", val);
}

void report_unfinished(const RunDirectory& directory) {
  try {
    report::write_report(directory.path(), "");
  } catch (const Error&) {
  }
}

}  // namespace birkhoff::train
