// Choosing the next token from logits.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace birkhoff::infer {

struct SamplerOptions {
  double temperature = 1.0;  // 0: always the largest logit (the lowest id on ties)
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;        // smallest set with at least this probability
  double min_p = 0.0;        // at least this share of the largest probability
  uint64_t seed = 1;
};

// Token `index` of a stream is a pure function of (logits, options, index): the draw goes down the ids by logit, the
// lower id of equals first. buffer: working memory of the caller, reused from call to call.
int32_t sample(std::span<const float> logits, const SamplerOptions& options, uint64_t index,
               std::vector<int32_t>& buffer);

// The ids of the `count` largest logits, the largest first and the lower id of equals first, in front of buffer.
void largest(std::span<const float> logits, size_t count, std::vector<int32_t>& buffer);

// Throws Error naming the option and its range.
void validate(const SamplerOptions& options);

}  // namespace birkhoff::infer
