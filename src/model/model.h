// A model ready to run: its description, fp32 master weights in one block, packed copies in the compute type, rotary tables.
#pragma once
#include <cstdint>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "model/config.h"
#include "model/weights.h"
#include "ops/rope.h"

namespace birkhoff::model {

struct Model {
  ModelConfig config;
  DType compute;               // of activations and matrix products
  ops::ResidualSpec residual;
  std::vector<BlockSpec> blocks;
  std::vector<ParameterInfo> parameters;
  Weights weights;
  std::vector<ops::RopeTable> ropes;  // config.rope_specs()
  float* block = nullptr;      // the masters, parameter_elements(parameters) floats

  // Takes masters and packed copies from `memory`, which must outlive the model. positions: longest sequence. Weights are
  // uninitialised; call refresh() after filling them.
  Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory);

  int64_t sites() const { return 2 * config.num_hidden_layers; }
  const ops::SiteWeights& site(int64_t s) const;
  // Packed copies from the masters.
  void refresh(const Exec& exec);
};

}  // namespace birkhoff::model
