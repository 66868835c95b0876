#include <algorithm>
#include <cstdio>
#include <optional>

#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "infer/engine.h"
#include "infer/sampler.h"
#include "infer/text_model.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::apps {
namespace {

struct GenerateFlags {
  std::string model, adapter, prompt, prompt_file, tokens_file, dtype, mla = "auto";
  std::vector<std::string> stop, fim, set;
  int64_t count = 200;
  bool special = false;
  infer::SamplerOptions sampling;
};

// The prompt, or the list of ids, that is given; files are read once, since they may be pipes.
std::string given_text(const GenerateFlags& f) {
  const int given = !f.prompt.empty() + !f.prompt_file.empty() + !f.tokens_file.empty() + !f.fim.empty();
  if (given > 1)
    throw Error("generate", "more than one of --prompt, --prompt-file, --tokens-file, --fim", "give one",
                ExitCode::usage);
  const std::string& file = f.prompt_file.empty() ? f.tokens_file : f.prompt_file;
  return file.empty() ? f.prompt : read_text_file(file);
}

std::vector<int32_t> prompt_ids(const GenerateFlags& f, const std::string& given, const infer::TextModel* model) {
  if (!model) return parse_token_list(given, f.tokens_file);
  if (f.fim.empty()) return model->prompt(given);
  if (!model->tokenizer())
    throw Error("generate", "--fim: a byte model has no tokens for filling in the middle",
                "use a model with a tokenizer that has them");
  return text::fim_prompt(*model->tokenizer(), f.fim[0], f.fim[1]);
}

// No prompt has more tokens: one a byte, and those that models want around a text.
int64_t most_tokens(const GenerateFlags& f, const std::string& given) {
  size_t bytes = given.size() + 16;
  for (const std::string& part : f.fim) bytes += part.size();
  return static_cast<int64_t>(bytes);
}

// Writes text as it becomes complete; true when one of the stop strings was written.
bool write(const std::string& part, const std::vector<std::string>& stops, std::string& text) {
  if (part.empty()) return false;
  const size_t before = text.size();
  text += part;
  size_t end = text.size();
  for (const std::string& s : stops) {
    if (s.empty()) continue;
    const size_t at = text.find(s, before >= s.size() ? before - s.size() + 1 : 0);
    if (at != std::string::npos) end = std::min(end, at + s.size());
  }
  const bool stopped = end < text.size() || std::any_of(stops.begin(), stops.end(), [&](const std::string& s) {
                         return !s.empty() && end >= s.size() && text.compare(end - s.size(), s.size(), s) == 0;
                       });
  std::fwrite(text.data() + before, 1, end - before, stdout);
  flush_output();
  return stopped;
}

layers::MlaForm mla_form(const std::string& name) {
  if (name == "auto") return layers::MlaForm::automatic;
  if (name == "expanded") return layers::MlaForm::expanded;
  if (name == "absorbed") return layers::MlaForm::absorbed;
  throw Error("generate", "--mla " + name + ": unknown form", "one of auto, expanded, absorbed", ExitCode::usage);
}

int generate(const GenerateFlags& f, int threads) {
  const layers::MlaForm form = mla_form(f.mla);
  infer::validate(f.sampling);
  if (f.count < 0)
    throw Error("generate", "-n must not be negative, is " + std::to_string(f.count), "", ExitCode::usage);
  const std::string given = given_text(f);
  infer::EngineOptions options;
  options.set = f.set;
  options.compute = f.dtype;
  options.enough_positions = std::max(options.enough_positions, most_tokens(f, given) + f.count);
  options.adapter = f.adapter;
  options.threads = threads;
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  // Ids in, ids out: no tokenizer is needed then, and none is looked for.
  std::optional<infer::TextModel> model;
  if (f.tokens_file.empty()) model.emplace(engine);
  const std::vector<int32_t> ids = prompt_ids(f, given, model ? &*model : nullptr);
  std::optional<infer::TextWriter> writer;
  if (model) writer.emplace(*model, ids, !f.special);
  infer::Session session(engine, static_cast<int64_t>(ids.size()) + std::max<int64_t>(f.count, 1), form);
  std::span<const float> logits = session.feed(ids);
  std::string text;  // what was written so far, to look for stop strings
  bool stopped = false;
  for (int64_t i = 0; i < f.count && !stopped && !stop_requested(); ++i) {
    const auto index = static_cast<uint64_t>(i);
    const int32_t id = model ? model->sample(logits, f.sampling, index) : infer::sample(logits, f.sampling, index);
    if (!model) {
      std::printf("%s%d", i ? " " : "", id);
      flush_output();
    } else if (model->ends(id)) {
      break;
    } else {
      stopped = write(writer->push(id), f.stop, text);
    }
    if (i + 1 < f.count && !stopped) logits = session.feed({&id, 1});
  }
  if (writer && !stopped) write(writer->finish(), f.stop, text);
  std::printf("\n");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Program& p) {
  auto f = std::make_shared<GenerateFlags>();
  CLI::App* verb = app.add_subcommand("generate", "Continue a prompt");
  verb->add_option("-m,--model", f->model, "run, checkpoint or model directory")->required();
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("-p,--prompt", f->prompt, "text to continue");
  verb->add_option("--prompt-file", f->prompt_file, "the same from a file");
  verb->add_option("--tokens-file", f->tokens_file, "whitespace-separated ids; ids are written too");
  verb->add_option("--fim", f->fim, "PREFIX SUFFIX: write what belongs between the two")->expected(2);
  verb->add_flag("--special", f->special, "write special tokens too");
  verb->add_option("-n,--count", f->count, "tokens to write")->capture_default_str();
  verb->add_option("--temp", f->sampling.temperature, "temperature; 0 takes the most probable")->capture_default_str();
  verb->add_option("--top-k", f->sampling.top_k, "0: all")->capture_default_str();
  verb->add_option("--top-p", f->sampling.top_p)->capture_default_str();
  verb->add_option("--min-p", f->sampling.min_p)->capture_default_str();
  verb->add_option("--seed", f->sampling.seed)->capture_default_str();
  verb->add_option("--stop", f->stop, "stop after this text; repeatable")->allow_extra_args(false);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_option("--mla", f->mla, "how latent attention reads its cache: auto, expanded, absorbed")
      ->capture_default_str();
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      install_stop_handlers();
      return generate(*f, p.thread_count());
    };
  });
}

}  // namespace birkhoff::apps
