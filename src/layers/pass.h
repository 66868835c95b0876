// What every layer is handed besides its own description, weights and tensors.
#pragma once
#include <cstdint>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "layers/tokens.h"
#include "ops/attention/rope.h"

namespace birkhoff::layers {

// One pass over a batch: where it runs, where its tokens stand, and memory that is free again afterwards.
struct Pass {
  const Exec& exec;
  const ops::RopeTable& rope;
  const TokenContext& ctx;
  Arena& scratch;
  // More than 0: weights lie in files that memory cannot hold. What is read is asked for as soon as it is known, of
  // experts about so many bytes at a time.
  int64_t stream_bytes = 0;
};

// Of a backward: dy, the gradient of the layer's output, is given; dx, that of its input, is assigned.
struct Cotangents {
  CMat dy;
  Mat dx;
};

}  // namespace birkhoff::layers
