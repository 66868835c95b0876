#include "train/sample_text.h"

#include <algorithm>
#include <memory>

#include "infer/engine.h"
#include "infer/sampler.h"

namespace birkhoff::train {

std::string sample_text(const std::string& run, int64_t seq_len, int threads) {
  constexpr int64_t kBytes = 600;
  infer::EngineOptions options;
  options.threads = threads;
  const infer::Engine engine(run, options);
  infer::SamplerOptions sampling;
  sampling.temperature = 0.8;
  const int64_t window = std::min(seq_len, engine.max_positions());
  auto session = std::make_unique<infer::Session>(engine, window);
  std::vector<int32_t> ids = {'\n'}, fresh = ids;
  while (static_cast<int64_t>(ids.size()) <= kBytes) {
    // Positions it was not trained on give poor text: go on from the second half of a full window.
    if (session->length() + static_cast<int64_t>(fresh.size()) > window) {
      session = std::make_unique<infer::Session>(engine, window);
      fresh.assign(ids.end() - std::max<int64_t>(1, window / 2), ids.end());
    }
    const int32_t id = infer::sample(session->feed(fresh), sampling, ids.size());
    ids.push_back(id);
    fresh = {id};
  }
  return {ids.begin() + 1, ids.end()};
}

}  // namespace birkhoff::train
