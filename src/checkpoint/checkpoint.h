// Training checkpoints: a Hugging Face directory plus trainer_state/ (optimizer moments, position of the run) and
// manifest.json, which is written last and lists every file with size and checksum. A checkpoint appears under its name
// complete or not at all.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/tensor_map.h"
#include "model/model.h"

namespace birkhoff::checkpoint {

struct TrainerState {
  float* moment1 = nullptr;  // [elements] in the layout of model/trainable.h
  float* moment2 = nullptr;
  int64_t elements = 0;
  nlohmann::json position = {};         // step, tokens, best validation, ...: what the loop needs to go on
  std::vector<std::string> files = {};  // copied into the checkpoint, such as the tokenizer's; not read back
  std::string base_model = {};          // what adapters were trained over, for their adapter_config.json
  // Where the weights came from: what still has those values is written with those bytes.
  const TensorMap* source = nullptr;
};

// Writes RUN/checkpoints/step-N and points RUN/latest at it, and RUN/adapter at the adapter inside when the model has
// one. Throws Error (disk full, ...) and leaves no half-written directory.
std::string save_checkpoint(const std::string& run, int64_t step, const model::Model& m, const nlohmann::json& config,
                            const TrainerState& state);

// Removes all but the newest `keep` checkpoints and step `best` (-1: none), and what killed processes left half
// written.
void prune_checkpoints(const std::string& run, int64_t keep, int64_t best);

// The newest checkpoint whose manifest verifies and whose values are all finite; note receives a sentence for each
// newer one that does not. Throws Error when none does.
std::string newest_good_checkpoint(const std::string& run, std::string* note);
bool has_checkpoints(const std::string& run);
std::vector<std::string> checkpoint_directories(const std::string& run);  // finished ones, newest first

// Reads weights, adapters and trainer state. state.moment1/2 must point at `elements` floats. Checks the model's
// settings against the checkpoint's.
void load_checkpoint(const std::string& directory, model::Model& m, TrainerState& state);

}  // namespace birkhoff::checkpoint
