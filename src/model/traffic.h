// What decoding moves through memory.
#pragma once
#include <cstdint>

#include "model/model.h"

namespace birkhoff::model {

// Bytes of weights that products read for generated tokens: every matrix once, of latent attention's up-projections
// their row blocks. Without norms, tables and the row of the embedding.
struct WeightTraffic {
  int64_t every = 0;   // of every token
  int64_t routed = 0;  // of all routed experts
  double chosen = 0;   // part of them that a token chooses
  double per_token() const { return static_cast<double>(every) + chosen * static_cast<double>(routed); }
  // What a token reads from the disk when `memory` bytes of weights stay in memory, those that were read last, and
  // experts are chosen alike (where some are chosen more often it is less): nothing of what every token reads, and of
  // the experts the part that has no room. When not even the weights of one token have room, all of them.
  double from_disk(double memory) const;
};
WeightTraffic weight_traffic(const Model& m);

}  // namespace birkhoff::model
