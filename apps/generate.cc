#include <cstdio>

#include "apps/verbs.h"
#include "core/error.h"
#include "infer/engine.h"
#include "infer/sampler.h"

namespace birkhoff::apps {
namespace {

struct Flags {
  std::string model, prompt, prompt_file, tokens_file, dtype, mla = "auto";
  std::vector<std::string> stop;
  int64_t count = 200;
  infer::SamplerOptions sampling;
};

std::vector<int32_t> prompt_ids(const Flags& f, const model::ModelConfig& c) {
  const int given = !f.prompt.empty() + !f.prompt_file.empty() + !f.tokens_file.empty();
  if (given > 1) throw Error("generate", "more than one of --prompt, --prompt-file, --tokens-file", "give one", ExitCode::usage);
  if (!f.tokens_file.empty()) return read_token_file(f.tokens_file);
  if (c.vocab_size != 256)
    throw Error("generate", "the model has " + std::to_string(c.vocab_size) + " tokens and no tokenizer; only byte models (256) read text", "use --tokens-file");
  std::string text = f.prompt_file.empty() ? f.prompt : read_text_file(f.prompt_file);
  if (text.empty()) text = "\n";  // a byte model has no start token; a line break starts a passage
  std::vector<int32_t> ids;
  for (const char ch : text) ids.push_back(static_cast<unsigned char>(ch));
  return ids;
}

layers::MlaForm mla_form(const std::string& name) {
  if (name == "auto") return layers::MlaForm::automatic;
  if (name == "expanded") return layers::MlaForm::expanded;
  if (name == "absorbed") return layers::MlaForm::absorbed;
  throw Error("generate", "--mla " + name + ": unknown form", "one of auto, expanded, absorbed", ExitCode::usage);
}

int generate(const Flags& f, int threads) {
  const layers::MlaForm form = mla_form(f.mla);
  infer::validate(f.sampling);
  if (f.count < 0) throw Error("generate", "-n must not be negative, is " + std::to_string(f.count), "", ExitCode::usage);
  infer::EngineOptions options;
  options.compute = f.dtype;
  options.threads = threads;
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  const std::vector<int32_t> ids = prompt_ids(f, engine.model().config);
  const bool as_ids = !f.tokens_file.empty();
  infer::Session session(engine, static_cast<int64_t>(ids.size()) + std::max<int64_t>(f.count, 1), form);
  std::span<const float> logits = session.feed(ids);
  std::string text;  // what was written so far, to look for stop strings
  for (int64_t i = 0; i < f.count && !stop_requested(); ++i) {
    const int32_t id = infer::sample(logits, f.sampling, static_cast<uint64_t>(i));
    if (as_ids) {
      std::printf("%s%d", i ? " " : "", id);
    } else {
      text.push_back(static_cast<char>(id));
      std::fputc(id, stdout);
    }
    std::fflush(stdout);
    const auto ends = [&](const std::string& s) { return !s.empty() && text.size() >= s.size() && text.compare(text.size() - s.size(), s.size(), s) == 0; };
    if (std::any_of(f.stop.begin(), f.stop.end(), ends)) break;
    if (i + 1 < f.count) logits = session.feed({&id, 1});
  }
  std::printf("\n");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Program& p) {
  auto f = std::make_shared<Flags>();
  CLI::App* verb = app.add_subcommand("generate", "Continue a prompt");
  verb->add_option("-m,--model", f->model, "run, checkpoint or model directory")->required();
  verb->add_option("-p,--prompt", f->prompt, "text to continue");
  verb->add_option("--prompt-file", f->prompt_file, "the same from a file");
  verb->add_option("--tokens-file", f->tokens_file, "whitespace-separated ids; ids are written too");
  verb->add_option("-n,--count", f->count, "tokens to write")->capture_default_str();
  verb->add_option("--temp", f->sampling.temperature, "temperature; 0 takes the most probable")->capture_default_str();
  verb->add_option("--top-k", f->sampling.top_k, "0: all")->capture_default_str();
  verb->add_option("--top-p", f->sampling.top_p)->capture_default_str();
  verb->add_option("--min-p", f->sampling.min_p)->capture_default_str();
  verb->add_option("--seed", f->sampling.seed)->capture_default_str();
  verb->add_option("--stop", f->stop, "stop after this text; repeatable")->allow_extra_args(false);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--mla", f->mla, "how latent attention reads its cache: auto, expanded, absorbed")->capture_default_str();
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      install_stop_handlers();
      return generate(*f, p.thread_count());
    };
  });
}

}  // namespace birkhoff::apps
