// What a training run will hold in memory, found by running one step dry: every op takes its buffers from a measuring
// arena and returns.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "model/trainable.h"
#include "model/transformer.h"

namespace birkhoff::model {

struct MemoryPlan {
  size_t weights = 0;    // fp32 masters and packed copies
  size_t gradients = 0;  // fp32, of what is trained (trainable.h)
  size_t optimizer = 0;  // two moments
  size_t kept = 0;       // activations that wait for backward
  size_t scratch = 0;    // working memory of the composing thread
  size_t workers = 0;    // working memory of the pool
  size_t process = 0;    // program, libraries, data pages, tables
  size_t total() const { return weights + gradients + optimizer + kept + scratch + workers + process; }
};

// tokens: of one part of a step (rows * seq_len). positions: longest sequence.
MemoryPlan plan_training(const ModelConfig& c, DType compute, int64_t rows, int64_t seq_len, Recompute policy,
                         int threads, IndexerTraining indexer = {}, const TrainingScope& scope = {});

// Throws Error with the numbers and a hint when the plan is larger than the machine.
void require_fits(const MemoryPlan& plan);
std::string describe(const MemoryPlan& plan);  // one line per part, MiB

}  // namespace birkhoff::model
