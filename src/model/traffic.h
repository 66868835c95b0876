// What decoding moves through memory.
#pragma once
#include <algorithm>
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
  // What of them stays in memory that has room for so many bytes: first what every token reads.
  double kept_of_every(double memory) const { return std::min(memory, static_cast<double>(every)); }
  double kept_of_routed(double memory) const {
    return std::clamp(memory - static_cast<double>(every), 0.0, static_cast<double>(routed));
  }
  // What a token reads of the rest when experts are chosen alike.
  double from_disk(double memory) const;
};
WeightTraffic weight_traffic(const Model& m);

// Decides which matrices of a streamed model stay in memory that has room for so many bytes of them, and which pass
// (layers::Linear::passing), evenly over the layers, so that some is read while other is computed.
void keep_in_memory(Model& m, double memory);

}  // namespace birkhoff::model
