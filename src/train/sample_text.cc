#include "train/sample_text.h"

#include "infer/engine.h"
#include "infer/sampler.h"

namespace birkhoff::train {

std::string sample_text(const std::string& run, int threads) {
  constexpr int64_t kBytes = 500;
  infer::EngineOptions options;
  options.threads = threads;
  const infer::Engine engine(run, options);
  infer::Session session(engine, kBytes + 1);
  infer::SamplerOptions sampling;
  sampling.temperature = 0.8;
  std::string text;
  int32_t id = '\n';
  for (int64_t i = 0; i < kBytes; ++i) {
    id = infer::sample(session.feed({&id, 1}), sampling, static_cast<uint64_t>(i));
    text.push_back(static_cast<char>(id));
  }
  return text;
}

}  // namespace birkhoff::train
