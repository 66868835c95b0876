#include "train/sample_text.h"

#include <algorithm>
#include <memory>

#include "infer/engine.h"
#include "infer/text_model.h"

namespace birkhoff::train {

std::string sample_text(const std::string& run, int64_t seq_len, int threads) {
  constexpr size_t kBytes = 600;
  infer::EngineOptions options;
  options.threads = threads;
  const infer::Engine engine(run, options);
  const infer::TextModel model(engine);
  infer::SamplerOptions sampling;
  sampling.temperature = 0.8;
  const int64_t window = std::min(seq_len, engine.max_positions());
  auto session = std::make_unique<infer::Session>(engine, window);
  std::vector<int32_t> ids = model.prompt(""), fresh = ids;
  infer::TextWriter writer(model, ids);
  std::string text;
  while (text.size() < kBytes && ids.size() <= 2 * kBytes) {
    // Positions it was not trained on give poor text: go on from the second half of a full window.
    if (session->length() + static_cast<int64_t>(fresh.size()) > window) {
      session = std::make_unique<infer::Session>(engine, window);
      fresh.assign(ids.end() - std::max<int64_t>(1, window / 2), ids.end());
    }
    const int32_t id = model.sample(session->feed(fresh), sampling, ids.size());
    ids.push_back(id);
    fresh = {id};
    text += model.ends(id) ? "\n" : writer.push(id);
  }
  return text + writer.finish();
}

}  // namespace birkhoff::train
