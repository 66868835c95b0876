#include <algorithm>
#include <cstdio>

#include "apps/eval_modes.h"
#include "apps/output.h"
#include "eval/likelihood.h"

namespace birkhoff::apps {

int eval_loss(const EvalFlags& f, const Program& p) {
  infer::EngineOptions options = f.engine_options(
      p, std::max(infer::EngineOptions().enough_positions, f.seq_len ? f.seq_len : eval::trained_seq_len(f.model)));
  options.progress = preparing_progress();
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  say_unread_folders(f.data);
  const eval::Likelihood r = eval::window_likelihood(engine, f.data, f.seq_len, f.validation);
  const eval::IndexerQuality q = eval::indexer_quality(engine, f.data, f.seq_len, f.validation);
  if (f.json) {
    nlohmann::json j{{"nats_per_token", r.nats_per_token()},
                     {"nats_per_byte", r.nats_per_byte()},
                     {"tokens", r.tokens},
                     {"bytes", r.bytes}};
    if (!q.layers.empty()) {
      j["indexer"] = {
          {"coverage", q.total().coverage()}, {"recall", q.total().recall()}, {"layers", nlohmann::json::array()}};
      for (const auto& l : q.layers)
        j["indexer"]["layers"].push_back({{"coverage", l.coverage()}, {"recall", l.recall()}});
    }
    std::printf("%s\n", j.dump().c_str());
  } else {
    std::printf("%.4f nats/token  %.4f nats/byte  over %lld tokens, %lld bytes\n", r.nats_per_token(),
                r.nats_per_byte(), static_cast<long long>(r.tokens), static_cast<long long>(r.bytes));
    if (!q.layers.empty())
      std::printf("indexer: covers %.4f of what the best selection would, recall %.4f\n", q.total().coverage(),
                  q.total().recall());
  }
  return 0;
}

}  // namespace birkhoff::apps
