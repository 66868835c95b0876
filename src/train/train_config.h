// Settings of a training run that are not the model's, and how presets, files and --set come together.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/config/config.h"
#include "model/trainable.h"
#include "model/transformer.h"
#include "optim/schedule.h"

namespace birkhoff::train {

enum class Optimizer { adamw, muon };
enum class IndexerStage { off, dense, sparse };  // what indexers do

struct TrainConfig {
  int64_t steps = 100, seq_len = 256, batch_size = 8, grad_accum = 1, seed = 1;
  int64_t batch_ramp = 0;  // steps over which batch_size grows linearly (optim::ramped_batch); 0 = constant
  DType dtype = DType::bf16;
  model::Recompute recompute = model::Recompute::none;
  Optimizer optimizer = Optimizer::adamw;
  optim::Schedule::Kind schedule = optim::Schedule::Kind::cosine;
  double lr = 1e-3, min_lr = -1;  // min_lr < 0: a tenth of lr
  int64_t warmup_steps = 0;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, momentum = 0.95, grad_clip = 1.0;
  bool decay_1d = false;
  double aux_expert = 0, aux_device = 0, aux_communication = 0, aux_sequence = 0, aux_mixtral = 0, z_loss = 0;
  double mtp_loss = 0.3;  // of the mean loss of the prediction modules, where the model has any
  IndexerStage indexer_stage = IndexerStage::sparse;
  double indexer_kl = 1;    // coefficient of their KL
  int64_t aux_devices = 1;  // contiguous expert groups of aux_device and aux_communication
  double bias_update_speed = 0;
  int64_t checkpoint_every = 0, keep = 3, eval_every = 0, gain_every = 0;
  double checkpoint_minutes = 10;  // of wall time since the last checkpoint, after which a step ends with one; 0: never
  bool keep_best = true;
  // Share of the documents rearranged for filling in the middle; needs a tokenizer that has the tokens.
  double fim_rate = 0;
  std::string trainable;     // expression over tensor names; the rest is frozen. "": everything, or the adapters alone
  int64_t lora_rank = 0;     // lora.rank, 0: no adapters
  double lora_alpha = 0;     // lora.alpha, 0: lora.rank
  std::string lora_targets;  // lora.targets, model/lora.h

  double final_lr() const { return min_lr < 0 ? lr / 10 : min_lr; }
  model::IndexerTraining indexer() const {
    return {indexer_stage != IndexerStage::off, indexer_stage == IndexerStage::dense};
  }
  // Throws Error for targets that the model does not have, and what tensors_matching refuses.
  model::TrainingScope scope(const model::ModelConfig& m) const;
};

// A run's description: what config.json of the run directory holds.
struct RunConfig {
  model::ModelConfig model;
  TrainConfig train;
};

// The model that the config.json of a model directory describes, without what that says of its training run and of its
// files.
model::ModelConfig model_of_directory(nlohmann::json config);

// Settings in order of precedence, lowest first: `base` (a preset's or file's JSON), then `overrides`, "key=value"
// each. A file may nest training settings under "training". Unknown keys are an Error with the nearest name, except in
// the config.json of a model directory, whose other keys stay in ModelConfig::unknown_keys. Contradictions are an
// Error, and what an explicit model_type has no place for. from: a model whose settings the run takes over; given ones
// may repeat them, and an Error names one that differs, with both values.
RunConfig make_run_config(const nlohmann::json& base, const std::vector<std::string>& overrides,
                          const model::ModelConfig* from = nullptr);
nlohmann::json run_config_to_json(const RunConfig& c);
RunConfig run_config_from_json(const nlohmann::json& j);
// Every name --set knows.
std::vector<std::string> setting_names();
// {name, what it may be} of those with a range or words: {"hc_mult", "1 .. 8"}, {"residual", "plain, hc, mhc"}.
std::vector<std::pair<std::string, std::string>> setting_choices();

}  // namespace birkhoff::train

namespace birkhoff {

template <>
struct NamesOf<model::Recompute> {
  static constexpr Named<model::Recompute> table[] = {
      {"none", model::Recompute::none}, {"site", model::Recompute::site}, {"layer", model::Recompute::layer}};
};
template <>
struct NamesOf<train::Optimizer> {
  static constexpr Named<train::Optimizer> table[] = {{"adamw", train::Optimizer::adamw},
                                                      {"muon", train::Optimizer::muon}};
};
template <>
struct NamesOf<optim::Schedule::Kind> {
  static constexpr Named<optim::Schedule::Kind> table[] = {{"constant", optim::Schedule::Kind::constant},
                                                           {"cosine", optim::Schedule::Kind::cosine},
                                                           {"step", optim::Schedule::Kind::step},
                                                           {"wsd", optim::Schedule::Kind::wsd}};
};
template <>
struct NamesOf<train::IndexerStage> {
  static constexpr Named<train::IndexerStage> table[] = {{"off", train::IndexerStage::off},
                                                         {"dense", train::IndexerStage::dense},
                                                         {"sparse", train::IndexerStage::sparse}};
};

}  // namespace birkhoff
