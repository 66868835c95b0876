// Loss of a model on data: consecutive non-overlapping windows, as in training's validation.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace birkhoff::eval {

struct Likelihood {
  double nats = 0;  // sum of -log p over the predicted tokens
  int64_t tokens = 0, bytes = 0;
  double nats_per_token() const { return tokens ? nats / static_cast<double>(tokens) : 0; }
  double nats_per_byte() const { return bytes ? nats / static_cast<double>(bytes) : 0; }
};

// data: files or folders. seq_len 0: what the run trained with, else 256. validation_only: the last 5 % of each source. Throws Error.
Likelihood window_likelihood(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len, bool validation_only);

}  // namespace birkhoff::eval
