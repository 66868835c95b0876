// Log-likelihoods of continuations: of many texts, what they have in common is read once.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "infer/engine.h"

namespace birkhoff::eval {

// ids[first ..] is the continuation of the ids before; 0 < first < ids.size().
struct Continuation {
  std::vector<int32_t> ids;
  size_t first = 0;
};

struct ContinuationScore {
  double loglikelihood = 0;  // nats, the sum over its tokens
  bool greedy = true;        // each was the most probable one; of equals, the one with the smallest id
};

struct ReadCounts {
  int64_t passes = 0, tokens = 0;  // that were run
};

// Runs the prefix tree of all of them through sessions of the engine (role: prompt), depth first, in passes that
// branches share, so that caches hold one path and the branches beside it. A score has the bits of the continuation
// read alone. done(i, score) is called once for each, as soon as it is known; between passes cancel is looked at: the
// rest is left out. Throws Error: ids, texts longer than the engine allows, no room in its caches for the longest.
ReadCounts score_continuations(const infer::Engine& engine, std::span<const Continuation> continuations,
                               const std::function<void(size_t, const ContinuationScore&)>& done,
                               const std::atomic<bool>& cancel);

}  // namespace birkhoff::eval
