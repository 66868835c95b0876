// The training loop.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "data/corpus.h"
#include "model/memory_plan.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "train/metrics.h"
#include "train/train_config.h"

namespace birkhoff::train {

// What one optimizer step produced.
struct StepOutcome {
  double loss = 0, z_loss = 0,
         aux_loss = 0;  // nats a token; the z-loss and the sum of the balance losses, with their coefficients
  std::optional<double> mtp_loss;      // mean over the prediction modules, without its coefficient
  std::optional<double> indexer_loss;  // KL of the indexers, nats a token and indexer, without its coefficient
  double grad_norm = 0, lr = 0;
  int64_t tokens = 0;
  double forward_ms = 0, backward_ms = 0, optimizer_ms = 0;
  std::vector<std::vector<int64_t>> expert_load;  // [MoE layer][expert]
};

// The memory of such a run: the model's plan and what its optimizer works in.
model::MemoryPlan plan_run(const RunConfig& config, int threads);

// Whether Muon moves this parameter where it is trained; AdamW moves the others.
bool moved_by_muon(const model::ParameterInfo& p, const TrainConfig& c);

// Weights, gradients, moments and buffers of one training run, and the step that moves them. Knows no files.
class TrainState {
 public:
  // Plans first and refuses what does not fit, before anything is allocated.
  TrainState(const RunConfig& config, int threads);
  // Fresh weights from the seed. `load` fills the model's own instead, when given; adapters are fresh in either case.
  void initialise(const std::function<void(model::Model&)>& load = nullptr);

  // One step at position `step` on the given parts (equal to grad_accum, or fewer while the batch ramps up).
  StepOutcome step(int64_t step, const std::vector<data::Batch>& parts);
  // Mean cross-entropy over the batches, nats a token; no gradients.
  double evaluate(const std::vector<data::Batch>& batches);
  // Gains of the residual maps over the tokens of one sequence (mhc.md 4).
  GainRecord measure_gains(const data::Batch& one_sequence);

  model::Model& model() { return *model_; }
  const model::Model& model() const { return *model_; }
  const RunConfig& config() const { return config_; }
  const model::MemoryPlan& plan() const { return plan_; }
  const Exec& exec() const { return exec_; }
  float* moment1() { return blocks_.moment1; }
  float* moment2() { return blocks_.moment2; }
  int64_t moment_elements() const { return trainable_.moment_elements; }
  const model::TrainableSet& trainable() const { return trainable_; }
  // Name of the first weight (or else gradient) tensor that holds a NaN or infinity; "" when all are finite.
  std::string first_bad_tensor() const;

 private:
  void optimizer_step(int64_t step, StepOutcome& out);
  RunConfig config_;
  model::MemoryPlan plan_;
  Exec exec_;
  std::unique_ptr<Arena> memory_, kept_, scratch_;
  std::unique_ptr<model::Model> model_;
  model::TrainableSet trainable_;
  model::Weights grads_;
  optim::ParameterBlocks blocks_;
  std::vector<optim::Parameter> parameters_;
};

// The run around the steps: directory, data, telemetry, checkpoints, report.
struct TrainOptions {
  nlohmann::json settings_base;               // preset or file
  std::vector<std::string> settings_set;      // key=value, over the base
  std::vector<std::string> data, validation;  // PATH[@WEIGHT]
  std::string tokenizer;                      // directory; "": bytes are tokens, or what the resumed run has
  std::string chat_template,
      chat_encoder;         // format of conversations: a file, or "v3.2", "v4"; both "": the directory's own
  std::string token_cache;  // directory where tokenized data is kept, "" keeps none
  std::string out;
  std::string init;  // a run, checkpoint or model directory whose weights the run starts from
  bool resume = false;
  int threads = 1;
  std::string command_line;
  bool terminal = false;  // progress bar on stderr
  bool quiet = false;
};
// Returns 0, or 130 when `stop` was raised and the run was saved. Throws Error.
int run_training(const TrainOptions& options, const std::atomic<bool>& stop);

}  // namespace birkhoff::train
