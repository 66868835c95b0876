// The loop around the steps: data, telemetry, checkpoints, signals, report.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/adapter.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_directory.h"
#include "core/cpu.h"
#include "core/error.h"
#include "io/json_file.h"
#include "model/config/inventory.h"
#include "model/config/notes.h"
#include "ops/experts/balance.h"
#include "ops/experts/routing.h"
#include "optim/schedule.h"
#include "report/report.h"
#include "train/progress.h"
#include "train/run_data.h"
#include "train/run_directory.h"
#include "train/run_tokenizer.h"
#include "train/sample_text.h"
#include "train/trainer.h"

namespace birkhoff::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr int64_t kRunValidationWindows = 32;  // the fixed sample during a run
constexpr double kNone = -1;

struct Position {
  int64_t step = 0, tokens = 0, best_step = -1;
  double best_val = INFINITY, train_seconds = 0;
};

json to_json(const Position& p) {
  return {{"step", p.step},
          {"tokens", p.tokens},
          {"best_step", p.best_step},
          {"best_val", std::isfinite(p.best_val) ? json(p.best_val) : json(nullptr)},
          {"train_seconds", p.train_seconds}};
}
Position position_from(const json& j, const std::string& file) {
  try {
    Position p;
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

int64_t rss_mib() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return u.ru_maxrss / 1024;
}

std::string absolute(const std::string& path) {
  return path.empty() ? "" : std::filesystem::absolute(path).lexically_normal().string();
}

// The weights of a directory; a checkpoint that was trained with adapters gives both together.
void load_whole(const std::string& directory, model::Model& m) {
  checkpoint::load_weights(directory, m);
  if (!checkpoint::has_adapter(directory)) return;
  const checkpoint::AdapterFiles adapter(directory, m.config);
  for (const model::ParameterInfo& p : m.parameters)
    adapter.add_to(p.name, 0, Mat(m.block + p.offset, f32_t, p.rows, p.cols));
}

// "1234", or "12 of 1234 + 8 adapter" when only some are trained.
std::string parameters_text(const model::TrainableSet& set) {
  int64_t model = 0, trained = 0, adapters = 0;
  for (const auto& p : set.parameters) {
    const bool adapter = p.info.name.find(".lora_") != std::string::npos;
    (adapter ? adapters : model) += p.info.size();
    if (p.trained && !adapter) trained += p.info.size();
  }
  if (trained == model && !adapters) return std::to_string(model);
  return std::to_string(trained) + " of " + std::to_string(model) +
         (adapters ? " and " + std::to_string(adapters) + " adapter" : "");
}

// One run from its first or resumed step to its end.
class Run {
 public:
  Run(const TrainOptions& o, RunConfig config, RunDirectory& dir, std::shared_ptr<const text::Tokenizer> tokenizer,
      RunData data)
      : options_(o),
        config_(std::move(config)),
        dir_(dir),
        tokenizer_(std::move(tokenizer)),
        base_model_(absolute(o.init)),
        data_(std::move(data)),
        state_(config_, o.threads),
        progress_(config_.train.steps, o.terminal, o.quiet) {}

  int execute(const std::atomic<bool>& stop);

 private:
  void start_or_resume();
  void keep_source(const std::string& directory);
  void say(const std::string& text) { progress_.message(text); }
  std::vector<data::Batch> training_parts(int64_t step) const;
  bool due(int64_t every) const { return every > 0 && at_.step % every == 0; }
  StepRecord record_of(const StepOutcome& s, double step_ms) const;
  bool measure(StepRecord& r);
  void check_finite(const StepOutcome& s) const;
  [[noreturn]] void stop_not_finite(int64_t step, const std::string& what, const std::string& tensor) const;
  void save();
  void finish();
  void write_run_json(const std::string& status) const;

  const TrainOptions& options_;
  RunConfig config_;
  RunDirectory& dir_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;  // nullptr: bytes are tokens
  std::string base_model_;                            // where the weights came from, "" for a fresh model
  RunData data_;
  // The files that the weights came from, of a run with --init: what training leaves as it was is written with their
  // bytes.
  struct Source {
    explicit Source(const std::string& directory) : files(directory) {}
    checkpoint::WeightFiles files;
    checkpoint::TensorMap map;
  };
  std::unique_ptr<Source> source_;
  TrainState state_;
  Progress progress_;
  Position at_;
  int64_t saved_step_ = -1;
  std::unique_ptr<MetricsWriter> metrics_;
};

void Run::start_or_resume() {
  // config.json makes the directory a run, which can be resumed from then on: what it was started with is there first.
  if (!options_.resume) write_run_json("running");
  io::write_json(dir_.file("config.json"), run_config_to_json(config_));
  if (options_.resume && checkpoint::has_checkpoints(dir_.path())) {
    std::string note;
    const std::string from = checkpoint::newest_good_checkpoint(dir_.path(), &note);
    if (!note.empty()) say(note);
    checkpoint::TrainerState saved{state_.moment1(), state_.moment2(), state_.moment_elements(), {}, {}, base_model_};
    checkpoint::load_checkpoint(from, state_.model(), saved);
    state_.model().refresh(state_.exec());
    if (!base_model_.empty()) keep_source(from);
    at_ = position_from(saved.position, from + "/trainer_state/position.json");
    saved_step_ = at_.step;
    say("resumed " + from + " at step " + std::to_string(at_.step));
  } else {
    if (options_.resume) say("no finished checkpoint: starting at step 0");
    if (base_model_.empty()) {
      state_.initialise();
    } else {
      const std::string from = checkpoint::resolve_model_directory(base_model_);
      state_.initialise([&](model::Model& m) { load_whole(from, m); });
      keep_source(from);
    }
  }
  metrics_ = std::make_unique<MetricsWriter>(dir_.file("metrics.jsonl"), at_.step);
  write_run_json("running");
}

void Run::keep_source(const std::string& directory) {
  source_ = std::make_unique<Source>(directory);
  source_->map = checkpoint::match_tensors(source_->files, state_.model().config, state_.model().parameters);
}

std::vector<data::Batch> Run::training_parts(int64_t step) const {
  const TrainConfig& c = config_.train;
  const int64_t rows = c.batch_size / c.grad_accum;
  int64_t total = c.batch_size;
  if (c.batch_ramp > 0) total = optim::ramped_batch(c.batch_size, c.batch_ramp, step);
  std::vector<data::Batch> parts;
  for (int64_t first = 0; first < total; first += rows)
    parts.push_back(data_.batches->training_batch(step, c.batch_size, first, std::min(rows, total - first)));
  return parts;
}

StepRecord Run::record_of(const StepOutcome& s, double step_ms) const {
  StepRecord r;
  r.step = at_.step;
  r.tokens = at_.tokens;
  r.loss = s.loss;
  r.aux_loss = s.aux_loss;
  r.indexer_loss = s.indexer_loss;
  r.z_loss = s.z_loss;
  r.mtp_loss = s.mtp_loss;
  r.lr = s.lr;
  r.grad_norm = s.grad_norm;
  r.step_ms = step_ms;
  r.tokens_per_s = static_cast<double>(s.tokens) / step_ms * 1e3;
  double gemm = 0;
  gemm = state_.exec().seconds()[static_cast<size_t>(Work::gemm)];
  r.gemm_share = gemm * 1e3 / step_ms;
  r.rss_mib = rss_mib();
  r.phase_ms = {{"forward", s.forward_ms}, {"backward", s.backward_ms}, {"optimizer", s.optimizer_ms}};
  for (const auto& load : s.expert_load) r.maxvio_layers.push_back(ops::max_violation(load));
  return r;
}

// True when the weights are the best so far by validation loss.
bool Run::measure(StepRecord& r) {
  const TrainConfig& c = config_.train;
  bool best = false;
  if (due(c.eval_every)) {
    r.val_loss = state_.evaluate(data_.batches->validation_batches(c.batch_size / c.grad_accum, kRunValidationWindows));
    best = *r.val_loss < at_.best_val;
    if (best) {
      at_.best_val = *r.val_loss;
      at_.best_step = at_.step;
    }
  }
  if (due(c.gain_every) && config_.model.residual != ops::ResidualKind::plain)
    r.gain = state_.measure_gains(data_.batches->validation_batches(1, 1).front());
  return best;
}

// Nothing that is not finite is trained on or saved.
void Run::stop_not_finite(int64_t step, const std::string& what, const std::string& tensor) const {
  throw Error("train",
              "step " + std::to_string(step) + ": " + what + (tensor.empty() ? "" : "; first bad tensor: " + tensor),
              saved_step_ >= 0 ? "the last good checkpoint is " + dir_.path() + "/checkpoints/step-" +
                                     std::to_string(saved_step_) + "; lower lr or set grad_clip and --resume"
                               : "there is no checkpoint yet; lower lr or set checkpoint_every",
              ExitCode::failed);
}

void Run::check_finite(const StepOutcome& s) const {
  if (std::isfinite(s.loss) && std::isfinite(s.grad_norm)) return;
  stop_not_finite(at_.step + 1, std::isfinite(s.loss) ? "the gradient norm is not finite" : "the loss is not finite",
                  state_.first_bad_tensor());
}

void Run::save() {
  if (saved_step_ == at_.step) return;
  if (const std::string tensor = state_.first_bad_tensor(); !tensor.empty())
    stop_not_finite(at_.step, "a weight is not finite, nothing is saved", tensor);
  checkpoint::TrainerState saved{state_.moment1(),
                                 state_.moment2(),
                                 state_.moment_elements(),
                                 to_json(at_),
                                 tokenizer_ ? tokenizer_->files() : std::vector<std::string>{},
                                 base_model_,
                                 source_ ? &source_->map : nullptr};
  json config = run_config_to_json(config_);
  if (tokenizer_) {  // so that other programs know where a text ends
    if (tokenizer_->bos()) config["bos_token_id"] = *tokenizer_->bos();
    if (tokenizer_->eos()) config["eos_token_id"] = *tokenizer_->eos();
  }
  checkpoint::save_checkpoint(dir_.path(), at_.step, state_.model(), config, saved);
  saved_step_ = at_.step;
  checkpoint::prune_checkpoints(dir_.path(), config_.train.keep, config_.train.keep_best ? at_.best_step : -1);
}

void Run::write_run_json(const std::string& status) const {
  const model::Inventory v = model::take_inventory(config_.model);
  char when[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  io::write_json(dir_.file("run.json"), {{"status", status},
                                         {"command", options_.command_line},
                                         {"time", when},
                                         {"data", options_.data},
                                         {"validation", options_.validation},
                                         {"init", base_model_},
                                         {"conversations", data_.counts},
                                         {"threads", options_.threads},
                                         {"cpu", cpu_model()},
                                         {"isa", isa_name(active_isa())},
                                         {"parameters", v.total},
                                         {"active_parameters", v.active_with_embedding},
                                         {"planned_mib", state_.plan().total() >> 20},
                                         {"position", to_json(at_)}});
}

int Run::execute(const std::atomic<bool>& stop) {
  start_or_resume();
  const TrainConfig& c = config_.train;
  if (!data_.notes.empty()) say(data_.notes);
  if (at_.step >= c.steps && at_.step > 0)
    say("the run is at step " + std::to_string(at_.step) + " of " + std::to_string(c.steps) +
        ": nothing is left to train");
  say("training " + parameters_text(state_.trainable()) + " parameters, " + std::to_string(c.steps) + " steps of " +
      std::to_string(c.batch_size * c.seq_len) + " tokens; planned memory " +
      std::to_string(state_.plan().total() >> 20) + " MiB");
  progress_.begin(at_.step);
  while (at_.step < c.steps && !stop) {
    state_.exec().seconds().fill(0);
    const auto start = Clock::now();
    const StepOutcome s = state_.step(at_.step, training_parts(at_.step));
    const double step_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    check_finite(s);
    ++at_.step;
    at_.tokens += s.tokens;
    at_.train_seconds += step_ms / 1e3;
    StepRecord r = record_of(s, step_ms);
    if (due(c.gain_every) || at_.step == c.steps) r.expert_load = s.expert_load;
    const bool best = measure(r);
    metrics_->write(r);  // before the checkpoint: a run killed in between takes the step again and writes it again
    progress_.step(at_.step, s.loss, r.tokens_per_s, r.val_loss);
    if (due(c.checkpoint_every) || (best && c.keep_best)) save();
  }
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
  const double val =
      state_.evaluate(data_.batches->validation_batches(config_.train.batch_size / config_.train.grad_accum, 0));
  char text[160];
  std::snprintf(text, sizeof text, "done: %lld steps in %.1f s of training, validation loss %.4f nats/token",
                static_cast<long long>(at_.step), at_.train_seconds, val);
  say(text);
  write_run_json("done");
  json run = io::read_json(dir_.file("run.json"));
  run["final_val_loss"] = val;
  io::write_json(dir_.file("run.json"), run);
}

// What is trained decides what a checkpoint holds.
bool fixed_within_run(const std::string& key) { return key == "trainable" || key.rfind("lora.", 0) == 0; }

// All settings under our names, whatever the released type the run's config.json is written as.
json settings_of(RunConfig c) {
  c.model.model_type = model::kOwnType;
  c.model.unknown_keys = "{}";
  return run_config_to_json(c);
}

// Model settings may not change on resume; others may, and are named.
RunConfig resumed_config(const TrainOptions& o, const RunDirectory& dir, std::vector<std::string>& notes) {
  const RunConfig was = run_config_from_json(io::read_json(dir.file("config.json")));
  const json before = settings_of(was);
  json base = before;
  base.erase("training");
  base.update(before["training"]);
  base.update(o.settings_base);
  RunConfig now = make_run_config(base, o.settings_set);
  now.model.model_type = was.model.model_type;
  now.model.unknown_keys = was.model.unknown_keys;
  now.model.quantisation = was.model.quantisation;
  const json after = settings_of(now);
  for (const auto& [key, value] : after.items()) {
    if (key == "training" || !before.contains(key) || before[key] == value) continue;
    throw Error("resume", key + ": the run has " + before[key].dump() + ", asked for " + value.dump(),
                "model settings cannot change within a run; start a new one");
  }
  for (const auto& [key, value] : after["training"].items()) {
    const json& earlier = before["training"][key];
    if (earlier != value && fixed_within_run(key))
      throw Error("resume", key + ": the run has " + earlier.dump() + ", asked for " + value.dump(),
                  "it cannot change within a run; start a new one with --init " + dir.path());
    if (earlier != value)
      notes.push_back("changed setting " + key + ": " + earlier.dump() + " -> " + value.dump() +
                      (key == "steps" ? " (schedule recomputed)" : ""));
  }
  return now;
}

// What the run was started with: its weights' origin, and its data unless other data is given.
void take_up(const std::string& file, TrainOptions& o, std::vector<std::string>& notes) {
  const json run = io::read_json(file);
  try {
    o.init = run.value("init", "");
    if (o.data.empty()) {
      o.data = run.at("data").get<std::vector<std::string>>();
      o.validation = run.at("validation").get<std::vector<std::string>>();
    }
    for (const auto& [key, now] : {std::pair{"data", o.data}, {"validation", o.validation}})
      if (const json was = run.value(key, json()); was != json(now))
        notes.push_back(std::string(key) + ": " + was.dump() + " -> " + json(now).dump());
  } catch (const json::exception& e) {
    throw Error("resume", file + ": " + e.what(), "it was edited; give --data again, or mend it");
  }
}

// Plots of a run that stopped early, without a sample: nothing when it has no metrics yet.
void report_unfinished(const RunDirectory& dir) {
  try {
    report::write_report(dir.path(), "");
  } catch (const Error&) {
  }
}

// The model of --init, with the training settings that were given.
RunConfig further_config(const TrainOptions& o, const std::string& directory, std::vector<std::string>& notes) {
  model::ModelConfig from = model_of_directory(checkpoint::read_config_json(directory));
  const std::string note = checkpoint::drop_absent_predictors(checkpoint::WeightFiles(directory), from);
  if (!note.empty()) notes.push_back(note);
  return make_run_config(o.settings_base, o.settings_set, &from);
}

}  // namespace

int run_training(const TrainOptions& o, const std::atomic<bool>& stop) {
  TrainOptions options = o;
  std::vector<std::string> notes;
  std::unique_ptr<RunDirectory> dir;
  RunConfig config;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  RunData data;
  if (o.resume && !o.init.empty())
    throw Error("train", "--init and --resume together", "--init starts a new run, --resume goes on with one",
                ExitCode::usage);
  if (o.resume) {
    for (const auto& [flag, value] :
         {std::pair{"--tokenizer", &o.tokenizer}, {"--template", &o.chat_template}, {"--encoder", &o.chat_encoder}})
      if (!value->empty())
        throw Error("resume",
                    std::string(flag) + ": a run keeps the " + (value == &o.tokenizer ? "tokenizer" : "chat format") +
                        " it was started with",
                    "leave it out", ExitCode::usage);
    if (text::Tokenizer::exists(o.out)) tokenizer = text::Tokenizer::open(o.out);
    dir = std::make_unique<RunDirectory>(o.out, RunDirectory::Open::resume);
    config = resumed_config(o, *dir, notes);
    take_up(dir->file("run.json"), options, notes);
    data = open_run_data(options, config, tokenizer, o.out);
  } else {
    const std::string init = o.init.empty() ? "" : checkpoint::resolve_model_directory(o.init);
    if (!o.tokenizer.empty())
      tokenizer = open_tokenizer(o.tokenizer);
    else if (!init.empty() && text::Tokenizer::exists(init))
      tokenizer = text::Tokenizer::open(init);
    if (init.empty()) fit_vocabulary(tokenizer.get(), options.settings_base, o.settings_set);
    config = init.empty() ? make_run_config(options.settings_base, o.settings_set) : further_config(o, init, notes);
    if (o.data.empty()) throw Error("train", "no data", "give --data PATH", ExitCode::usage);
    check_vocabulary(tokenizer.get(), config);
    // Everything that can be refused is refused before the directory comes into being.
    data = open_run_data(options, config, tokenizer, o.tokenizer.empty() ? init : o.tokenizer);
    model::require_fits(plan_run(config, o.threads));
    dir = std::make_unique<RunDirectory>(o.out, RunDirectory::Open::fresh);
    if (tokenizer) {
      copy_tokenizer(*tokenizer, dir->path());
      keep_chat_format(options, data, dir->path(), config);
      tokenizer = text::Tokenizer::open(dir->path());
    }
  }
  for (auto of : {model::reading_notes, model::writing_notes})
    for (std::string& note : of(config.model)) notes.push_back(std::move(note));
  for (const auto& n : notes) std::fprintf(stderr, "birkhoff: %s\n", n.c_str());
  if (const std::string keys = model::unknown_key_names(config.model); !keys.empty())
    std::fprintf(stderr, "birkhoff: kept in config.json, not used: %s\n", keys.c_str());
  try {
    Run run(options, config, *dir, tokenizer, std::move(data));
    if (const int code = run.execute(stop)) {
      report_unfinished(*dir);
      return code;
    }
  } catch (const Error&) {
    report_unfinished(*dir);
    throw;
  }  // the run's memory is returned before a model is opened to write the sample
  report::write_report(dir->path(), sample_text(dir->path(), config.train.seq_len, options.threads));
  std::fprintf(stderr, "birkhoff: report: %s\n", dir->file("report.html").c_str());
  return 0;
}

}  // namespace birkhoff::train
