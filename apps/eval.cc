#include <algorithm>
#include <cstdio>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "eval/likelihood.h"
#include "infer/engine.h"

namespace birkhoff::apps {

void add_eval(CLI::App& app, Program& p) {
  struct EvalFlags {
    WeightFlags weights;
    std::string model, adapter, dtype;
    std::vector<std::string> data, set;
    int64_t seq_len = 0;
    bool validation = false, json = false;
  };
  auto f = std::make_shared<EvalFlags>();
  CLI::App* verb = app.add_subcommand("eval", "Loss of a model on data, over consecutive windows");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("--data", f->data, "file or folder; repeatable")->required()->allow_extra_args(false);
  verb->add_option("--seq-len", f->seq_len, "window; default: as trained")->check(whole_number(1, INT32_MAX));
  verb->add_flag("--validation", f->validation, "only the last 5 % of each source, as in training");
  f->weights.add(*verb);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_flag("--json", f->json, "JSON instead of text");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.set = f->set;
      options.enough_positions =
          std::max(options.enough_positions, f->seq_len ? f->seq_len : eval::trained_seq_len(f->model));
      options.adapter = f->adapter;
      options.threads = p.thread_count();
      f->weights.apply(options);
      options.progress = preparing_progress();
      const infer::Engine engine(f->model, options);
      if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
      say_unread_folders(f->data);
      const eval::Likelihood r = eval::window_likelihood(engine, f->data, f->seq_len, f->validation);
      const eval::IndexerQuality q = eval::indexer_quality(engine, f->data, f->seq_len, f->validation);
      if (f->json) {
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
    };
  });
}

}  // namespace birkhoff::apps
