// Loss of a model on data: consecutive non-overlapping windows, as in training's validation.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "eval/windows.h"

namespace birkhoff::eval {

struct Likelihood {
  double nats = 0;  // sum of -log p over the predicted tokens
  int64_t tokens = 0, bytes = 0;
  double nats_per_token() const { return tokens ? nats / static_cast<double>(tokens) : 0; }
  double nats_per_byte() const { return bytes ? nats / static_cast<double>(bytes) : 0; }
};

// How well the indexers of a model (models.md F) select, over the tokens that see more than they may select: mass of
// attention that the selection covers, relative to the best selection of that size, and the part of the best that it
// contains. Of every layer and of all.
struct IndexerQuality {
  std::vector<ops::SelectionQuality> layers;  // empty: the model has no indexers
  ops::SelectionQuality total() const;
};

// Sums over the labels of all batches, of a model in memory: what training validates with. The pass has room for a
// forward of the largest batch that keeps nothing, and for ops::cross_entropy_forward.
ops::LossSums batch_losses(const Exec& exec, const model::Model& m, model::Pass& pass,
                           const std::vector<data::Batch>& batches);

// data: files or folders, cut into windows of seq_len, 0: as trained. validation_only: the last 5 % of each source.
// Throws Error.
Likelihood window_likelihood(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len,
                             bool validation_only, const Advance& advance = {});
IndexerQuality indexer_quality(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len,
                               bool validation_only);

}  // namespace birkhoff::eval
