// What a run does with its steps: pre-training, and whatever else moves a model's weights step by step. The run around
// it (run.h) keeps directory, position, metrics and checkpoints.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/metrics.h"
#include "train/train_state.h"

namespace birkhoff::train {

class Stage {
 public:
  virtual ~Stage() = default;
  // The weights and moments that checkpoints hold.
  virtual TrainState& state() = 0;
  // What will be trained, and on what: lines said before the first step.
  virtual std::vector<std::string> introduction() const = 0;
  // Step i (from 0): a pure function of the state and i, so that a resumed run repeats it. The record holds what the
  // step computed (record_of), its tokens alone; the run adds position, time and memory.
  virtual StepRecord step(int64_t i) = 0;
  // Loss of the validation data, nats a token; windows > 0: of that many, spread evenly and always the same; 0: all.
  virtual double evaluate(int64_t windows) = 0;
  // Gains of the residual maps, where the model has any.
  virtual std::optional<GainRecord> gains() = 0;
  // Adds what the run was started with to run.json.
  virtual void describe(nlohmann::json& run) const = 0;
  // What a checkpoint keeps of the stage beside weights and moments, and gets back; null: nothing.
  virtual nlohmann::json position() const { return nullptr; }
  virtual void go_on_from(const nlohmann::json&) {}
};

// The fields of a record that a step of TrainState fills.
StepRecord record_of(const StepOutcome& s);

}  // namespace birkhoff::train
