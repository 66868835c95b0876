#include <cstring>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "infer/engine.h"
#include "io/safetensors.h"
#include "io/user_files.h"

namespace birkhoff::apps {

void add_logits(CLI::App& app, Program& p) {
  struct LogitsFlags {
    WeightFlags weights;
    std::string model, adapter, tokens_file, out, dtype;
    std::vector<std::string> set;
  };
  auto f = std::make_shared<LogitsFlags>();
  CLI::App* verb = app.add_subcommand("logits", "Write the logits of a token sequence: tensor `logits` [T, V] F32");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("--tokens-file", f->tokens_file, "whitespace-separated token ids")->required();
  verb->add_option("--out", f->out, "safetensors file to write")->required();
  f->weights.add(*verb);
  verb->add_option("--dtype", f->dtype, "fp32 or bf16; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      io::check_not_an_input(f->out, {f->tokens_file});
      const std::vector<int32_t> ids = read_token_file(f->tokens_file);
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.set = f->set;
      options.adapter = f->adapter;
      options.threads = p.thread_count();
      f->weights.apply(options);
      options.progress = preparing_progress();
      options.enough_positions = static_cast<int64_t>(ids.size());
      const infer::Engine engine(f->model, options);
      if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
      check_not_of_model(f->out, f->model, engine.directory());
      const int64_t V = engine.model().config.vocab_size;
      std::vector<float> out(ids.size() * static_cast<size_t>(V));
      engine.full_logits(ids, [&](int64_t t, std::span<const float> row) {
        std::memcpy(out.data() + t * V, row.data(), row.size_bytes());
      });
      const io::TensorEntry entry{"logits",
                                  io::TensorType::f32,
                                  {static_cast<int64_t>(ids.size()), V},
                                  reinterpret_cast<const std::byte*>(out.data()),
                                  out.size() * 4};
      io::write_safetensors(f->out, {&entry, 1});
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
