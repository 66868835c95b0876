#include "train/pretraining.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ops/experts/balance.h"
#include "optim/schedule.h"

namespace birkhoff::train {
namespace {

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

}  // namespace

StepRecord record_of(const StepOutcome& s) {
  StepRecord r;
  r.tokens = s.tokens;
  r.loss = s.loss;
  r.aux_loss = s.aux_loss;
  r.indexer_loss = s.indexer_loss;
  r.z_loss = s.z_loss;
  r.mtp_loss = s.mtp_loss;
  r.lr = s.lr;
  r.grad_norm = s.grad_norm;
  r.phase_ms = {{"forward", s.forward_ms}, {"backward", s.backward_ms}, {"optimizer", s.optimizer_ms}};
  for (const auto& load : s.expert_load) r.maxvio_layers.push_back(ops::max_violation(load));
  r.expert_load = s.expert_load;
  return r;
}

Pretraining::Pretraining(const RunConfig& config, RunData data, int threads)
    : data_(std::move(data)), state_(config, threads) {}

std::vector<std::string> Pretraining::introduction() const {
  const TrainConfig& c = settings();
  std::vector<std::string> lines;
  if (!data_.notes.empty()) lines.push_back(data_.notes);
  lines.push_back("training " + parameters_text(state_.trainable()) + " parameters, " + std::to_string(c.steps) +
                  " steps of " + std::to_string(c.batch_size * c.seq_len) + " tokens; planned memory " +
                  std::to_string(state_.plan().total() >> 20) + " MiB");
  return lines;
}

std::vector<data::Batch> Pretraining::parts(int64_t step) const {
  const TrainConfig& c = settings();
  int64_t total = c.batch_size;
  if (c.batch_ramp > 0) total = optim::ramped_batch(c.batch_size, c.batch_ramp, step);
  std::vector<data::Batch> parts;
  for (int64_t first = 0; first < total; first += part_rows())
    parts.push_back(data_.batches->training_batch(step, c.batch_size, first, std::min(part_rows(), total - first)));
  return parts;
}

StepRecord Pretraining::step(int64_t i) {
  state_.accumulate(parts(i));
  return record_of(state_.apply(i));
}

double Pretraining::evaluate(int64_t windows) {
  return state_.evaluate(data_.batches->validation_batches(part_rows(), windows));
}

std::optional<GainRecord> Pretraining::gains() {
  if (state_.config().model.residual == ops::ResidualKind::plain) return std::nullopt;
  return state_.measure_gains(data_.batches->validation_batches(1, 1).front());
}

void Pretraining::describe(nlohmann::json& run) const {
  run["data"] = data_.training;
  run["validation"] = data_.validation;
  run["conversations"] = data_.counts;
  run["data_files"] = data_.files;
}

}  // namespace birkhoff::train
