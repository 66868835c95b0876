#include "train/sample_text.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "infer/generation.h"

namespace birkhoff::train {

std::string sample_text(const infer::Engine& engine, int64_t seq_len) {
  constexpr size_t kBytes = 600;
  const infer::TextModel model(engine);
  const int64_t window = std::min(seq_len, engine.max_positions());
  auto session = std::make_unique<infer::Session>(engine, window);
  std::vector<int32_t> read;
  // Positions it was not trained on give poor text: a full window goes on from its second half.
  const auto feed = [&](std::span<const int32_t> ids, infer::TokenRole role) {
    read.insert(read.end(), ids.begin(), ids.end());
    if (session->length() + static_cast<int64_t>(ids.size()) <= window) return session->feed(ids, role);
    session = std::make_unique<infer::Session>(engine, window);
    return session->feed(std::span(read).last(static_cast<size_t>(std::max<int64_t>(1, window / 2))));
  };
  const std::vector<int32_t> prompt = model.prompt("");
  infer::GenerationOptions options;
  options.sampling.temperature = 0.8;
  options.first_draw = prompt.size();
  options.max_tokens = static_cast<int64_t>(2 * kBytes + 1 - prompt.size());
  options.through_ends = true;  // a new text begins
  std::string text;
  const std::atomic<bool> never{false};
  const infer::Generated r =
      infer::generate(feed, &model, prompt, options, never, [&](const infer::GeneratedToken& token) {
        text += token.ends ? "\n" : token.text;
        return text.size() < kBytes;
      });
  return text + r.rest;
}

}  // namespace birkhoff::train
