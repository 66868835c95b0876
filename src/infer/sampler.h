// Choosing the next token from logits.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace birkhoff::infer {

// Limits apply in this order, each to the distribution that the ones before it left, as transformers does.
struct SamplerOptions {
  double temperature = 1.0;  // 0: always the largest logit (the lowest id on ties)
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;        // smallest set with at least this probability
  double min_p = 0.0;        // at least this share of the largest probability
  double typical_p = 1.0;    // at least this probability of ids whose -log p is nearest to the entropy, with all that
                             // are as near as the last of them (Meister et al. 2022); 1: all
  uint64_t seed = 1;
};

// Token `index` of a stream is a pure function of (logits, options, index): the draw goes down the ids by logit, the
// lower id of equals first. buffer: working memory of the caller, reused from call to call. Throws Error: logits that
// are NaN or +inf, or all -inf.
int32_t sample(std::span<const float> logits, const SamplerOptions& options, uint64_t index,
               std::vector<int32_t>& buffer);

// What sample draws from: p [V], assigned; 0 for ids that cannot be drawn. Throws as sample does.
void probabilities(std::span<const float> logits, const SamplerOptions& options, std::vector<int32_t>& buffer,
                   std::span<double> p);

// The ids of the `count` largest logits, the largest first and the lower id of equals first, in front of buffer.
void largest(std::span<const float> logits, size_t count, std::vector<int32_t>& buffer);

// Throws Error naming the option and its range.
void validate(const SamplerOptions& options);

}  // namespace birkhoff::infer
