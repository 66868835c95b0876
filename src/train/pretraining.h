// Next-token prediction over batches of data: the first stage of a run.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "train/run_data.h"
#include "train/stage.h"

namespace birkhoff::train {

class Pretraining final : public Stage {
 public:
  Pretraining(const RunConfig& config, RunData data, int threads);
  TrainState& state() override { return state_; }
  std::vector<std::string> introduction() const override;
  StepRecord step(int64_t i) override;
  double evaluate(int64_t windows) override;
  std::optional<GainRecord> gains() override;
  void describe(nlohmann::json& run) const override;

 private:
  std::vector<data::Batch> parts(int64_t step) const;
  const TrainConfig& settings() const { return state_.config().train; }
  int64_t part_rows() const { return settings().batch_size / settings().grad_accum; }
  RunData data_;
  TrainState state_;
};

}  // namespace birkhoff::train
