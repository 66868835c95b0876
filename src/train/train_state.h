// One optimizer step: gradients of an objective over the parts of a step, then the step itself. Knows no files.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "data/batch.h"
#include "model/memory_plan.h"
#include "model/pass.h"
#include "optim/optimizer.h"
#include "train/metrics.h"
#include "train/train_config.h"

namespace birkhoff::train {

// What one optimizer step produced.
struct StepOutcome {
  double loss = 0;                     // nats a token
  double z_loss = 0, aux_loss = 0;     // the z-loss and the sum of the balance losses, with their coefficients
  std::optional<double> mtp_loss;      // mean over the prediction modules, without its coefficient
  std::optional<double> indexer_loss;  // KL of the indexers, nats a token and indexer, without its coefficient
  double objective = 0;                // what was minimised of the tokens: of next-token prediction the loss
  double grad_norm = 0, lr = 0;
  int64_t tokens = 0;  // with a label that counts
  double forward_ms = 0, backward_ms = 0, optimizer_ms = 0;
  std::vector<std::vector<int64_t>> expert_load;  // [MoE layer][expert]
};

// The memory of such a run: the model's plan and what its optimizer works in.
model::MemoryPlan plan_run(const RunConfig& config, int threads);

// Whether Muon moves this parameter where it is trained; AdamW moves the others.
bool moved_by_muon(const model::ParameterInfo& p, const TrainConfig& c);

// What a step minimises: the sum over the counted tokens of its parts of value(part, token, log p), a token being a row
// of its part. Called once a token, by several threads at once: a pure function. nullptr: next-token prediction, -log p
// divided by the counted tokens of the step.
using Objective = std::function<ops::TokenValue(size_t part, int64_t token, double log_p)>;

// Weights, gradients, moments and buffers of one training run, and the step that moves them.
class TrainState {
 public:
  // Plans first and refuses what does not fit, before anything is allocated.
  TrainState(const RunConfig& config, int threads);
  // Fresh weights from the seed. `load` fills the model's own instead, when given; adapters are fresh in either case.
  void initialise(const std::function<void(model::Model&)>& load = nullptr);

  // A step is accumulate, then apply. accumulate: gradients of the objective and of the losses that the settings add,
  // over all parts of the step (grad_accum of them, fewer while the batch ramps up), the weights standing still.
  void accumulate(const std::vector<data::Batch>& parts, const Objective& objective = nullptr);
  // Moves the weights as step `step` (from 0) of the schedule; gradients become zero. A loss or norm that is not finite
  // moves nothing and leaves the gradients, for first_bad_tensor.
  StepOutcome apply(int64_t step);
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
  void move_router_biases(const std::vector<std::vector<int64_t>>& expert_load);
  RunConfig config_;
  model::MemoryPlan plan_;
  Exec exec_;
  std::unique_ptr<Arena> memory_;
  std::unique_ptr<model::Pass> pass_;
  std::unique_ptr<model::Model> model_;
  model::TrainableSet trainable_;
  model::Weights grads_;
  optim::ParameterBlocks blocks_;
  std::vector<optim::Parameter> parameters_;
  std::optional<StepOutcome> accumulated_;  // between accumulate and apply
};

}  // namespace birkhoff::train
