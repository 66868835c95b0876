// Which parameters of a model are trained, and where their gradients and optimizer moments lie.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

namespace birkhoff::model {

// What a run trains: settings `trainable` and `lora.*`.
struct TrainingScope {
  std::string trainable;                                    // as it was given, for messages
  std::function<bool(const std::string& name)> is_trained;  // of the model's tensors; nullptr: see choose_trainable
  LoraSpec lora;
};

struct TrainedParameter {
  ParameterInfo info;
  float* weight = nullptr;
  int64_t state = -1;    // of its gradient (and moments) in their blocks, in elements; -1: has none
  bool trained = false;  // a frozen parameter may still have a gradient: of a small tensor that backward always writes,
                         // or of rows of a matrix whose other rows are trained
};

// The state blocks: gradients, and both moments in the same layout but shorter, since frozen tensors come last.
struct TrainableSet {
  std::vector<TrainedParameter> parameters;  // the model's, then its adapters'
  int64_t gradient_elements = 0, moment_elements = 0;
  const TrainedParameter* find(const std::string& name) const;
};

// The tensors (names: V3's) that scope.is_trained accepts are trained, the rest is frozen. Without it: everything, or
// nothing but the adapters when the model has some. Adapters are always trained. Throws Error when no tensor is
// accepted, with the nearest names. Without memory (a model over a measuring arena) the weights are addresses that
// nobody reads.
TrainableSet choose_trainable(const Model& m, const TrainingScope& scope);

// Shapes of the gradients of m: its weights and adapters, every matrix that needs a gradient bound into `block`; the
// others have no memory, which tells backward to leave them out.
Weights bind_gradients(const Model& m, const TrainableSet& set, float* block);

// Zeroes the gradients of frozen parameters in the block.
void clear_frozen(const TrainableSet& set, float* block);

}  // namespace birkhoff::model
