#include "infer/speculation.h"

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::infer {

int32_t sample_speculatively(std::span<const float> logits, int32_t id, std::span<const double> q,
                             const SamplerOptions& options, uint64_t index, SpeculationBuffers& b) {
  if (q.empty() || options.temperature == 0) return sample(logits, options, index, b.ids);
  BK_CHECK(q.size() == logits.size() && static_cast<size_t>(id) < q.size());
  b.p.resize(logits.size());
  probabilities(logits, options, b.ids, b.p);
  const auto drafted = static_cast<size_t>(id);
  if (Rng(options.seed, 0xacce97).uniform(index) * q[drafted] < b.p[drafted]) return id;
  double mass = 0;
  for (size_t i = 0; i < q.size(); ++i) mass += std::max(0.0, b.p[i] - q[i]);
  double left = Rng(options.seed, 0x4e51d).uniform(index) * mass;
  int32_t last = -1;
  for (size_t i = 0; i < q.size(); ++i) {
    const double r = b.p[i] - q[i];
    if (r <= 0) continue;
    last = static_cast<int32_t>(i);
    left -= r;
    if (left < 0) break;
  }
  // Nothing remains where p and q differ by roundings alone: the model's own draw then.
  return last >= 0 ? last : sample(logits, options, index, b.ids);
}

std::vector<int32_t> verify(const Draft& draft, const std::function<std::span<const float>(size_t)>& row,
                            LogitsProcessor& processor, const SamplerOptions& options, uint64_t first_index,
                            SpeculationBuffers& b, const std::function<bool(int32_t)>& on_token) {
  std::vector<int32_t> tokens;
  for (const size_t drafted = draft.ids.size();;) {
    const size_t i = tokens.size();
    const std::span<const float> logits = processor.process(row(i), b.logits);
    const int32_t id = i < drafted ? draft.ids[i] : -1;
    std::span<const double> q;
    if (i < drafted && !draft.q.empty()) q = std::span(draft.q).subspan(i * logits.size(), logits.size());
    tokens.push_back(sample_speculatively(logits, id, q, options, first_index + i, b));
    processor.accept(tokens.back());
    const bool go_on = !on_token || on_token(tokens.back());
    if (!go_on || tokens.back() != id) return tokens;
  }
}

}  // namespace birkhoff::infer
