// A run around the steps of a stage: directory, position, metrics, checkpoints, the end, the report.
#pragma once
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "checkpoint/tensor_map.h"
#include "checkpoint/weight_files.h"
#include "text/tokenizer/tokenizer.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_directory.h"
#include "train/stage.h"

namespace birkhoff::train {

struct RunSetup {
  RunConfig config;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // that of the run directory; nullptr: bytes are tokens
  std::string base_model;    // absolute path of the model directory whose weights the run starts from, "": fresh ones
  std::string command_line;  // for run.json
  int threads = 1;
  bool resume = false;    // from the newest good checkpoint
  bool terminal = false;  // progress as a bar
  bool quiet = false;
};

// Where a run stands.
struct RunPosition {
  int64_t step = 0, tokens = 0, best_step = -1;
  double best_val = INFINITY, train_seconds = 0;
};

// One run from its first or resumed step to its end.
class Run {
 public:
  // directory and stage are used by execute.
  Run(RunSetup setup, RunDirectory& directory, Stage& stage);
  // Trains to config.train.steps, a checkpoint when one is due and at the end. Returns 0, or 130 when `stop` was
  // raised: the step was finished and the run saved. Throws Error: a loss, norm or weight that is not finite, a
  // directory that was removed, a full disk.
  int execute(const std::atomic<bool>& stop);

 private:
  void start_or_resume();
  void load_checkpoint(const std::string& directory);
  void keep_source(const std::string& directory);
  void say(const std::string& text) { progress_.message(text); }
  bool due(int64_t every) const { return every > 0 && at_.step % every == 0; }
  bool checkpoint_is_late() const;
  void take_step();
  bool measure(StepRecord& r);
  void check_finite(const StepRecord& r) const;
  [[noreturn]] void stop_not_finite(int64_t step, const std::string& what, const std::string& tensor) const;
  void require_directory() const;
  void save();
  void finish();
  void write_run_json(const std::string& status, std::optional<double> final_val_loss = {}) const;

  RunSetup setup_;
  RunDirectory& dir_;
  Stage& stage_;
  // The files that the weights came from, of a run with a base model: what training leaves as it was is written with
  // their bytes.
  struct Source {
    explicit Source(const std::string& directory) : files(directory) {}
    checkpoint::WeightFiles files;
    checkpoint::TensorMap map;
  };
  std::unique_ptr<Source> source_;
  Progress progress_;
  RunPosition at_;
  int64_t saved_step_ = -1;
  std::chrono::steady_clock::time_point saved_at_;
  std::unique_ptr<MetricsWriter> metrics_;
};

// Plots of a run that stopped early, without a sample: nothing when it has no metrics yet.
void report_unfinished(const RunDirectory& directory);

}  // namespace birkhoff::train
