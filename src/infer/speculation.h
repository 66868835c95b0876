// Speculative sampling (Leviathan et al. 2023, Chen et al. 2023): tokens of a draft that one pass of the model judges,
// such that what is written has the distribution of plain decoding.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "infer/logits_processor.h"
#include "infer/sampler.h"

namespace birkhoff::infer {

// Ids that may come next, one after the other.
struct Draft {
  std::vector<int32_t> ids;
  // What they were drawn from: q [ids][V], each row with a sum of 1. Empty for ids that were chosen without a draw.
  std::vector<double> q;
};

struct SpeculationBuffers {
  std::vector<int32_t> ids;
  std::vector<float> logits;
  std::vector<double> p;
};

// Token `index` of a stream where id was drafted from q [V] (what processed logits and options say: p): the drafted one
// with probability min(1, p / q), else one of max(0, p - q), which is never the drafted one. With an empty q the draft
// is a point mass, for which drawing as ever is that rule: token and bits are those of sample(). So they are at
// temperature 0. Otherwise a pure function of its arguments, of the distribution of sample(). Throws as sample() does.
int32_t sample_speculatively(std::span<const float> logits, int32_t id, std::span<const double> q,
                             const SamplerOptions& options, uint64_t index, SpeculationBuffers& buffers);

// The tokens that follow: as many of the draft as are accepted and one of the model's own. row(i): the model's logits
// [V] behind the first i ids of the draft, i <= draft.ids.size(), valid until the next call. The processor has accepted
// every token when this returns; on_token, if any, says whether to go on after one (an end of text).
std::vector<int32_t> verify(const Draft& draft, const std::function<std::span<const float>(size_t)>& row,
                            LogitsProcessor& processor, const SamplerOptions& options, uint64_t first_index,
                            SpeculationBuffers& buffers, const std::function<bool(int32_t)>& on_token = nullptr);

}  // namespace birkhoff::infer
