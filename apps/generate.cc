#include <algorithm>
#include <cstdio>
#include <optional>

#include "apps/flags.h"
#include "apps/generation_printer.h"
#include "apps/output.h"
#include "apps/prompts.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "infer/scheduler.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::apps {
namespace {

struct GenerateFlags {
  WeightFlags weights;
  CacheFlags caches;
  int64_t parallel = 1;
  std::string model, adapter, dtype;
  std::vector<std::string> set;
  PromptFlags prompts;
  int64_t samples = 1;
  bool json_lines = false;
  DraftFlags draft;
  infer::GenerationOptions options;
};

std::vector<int32_t> encode(const GenerateFlags& f, const infer::TextModel& model, const std::string& text) {
  if (f.prompts.fim.empty()) return model.prompt(text);
  if (!model.tokenizer())
    throw Error("generate", "--fim: a byte model has no tokens for filling in the middle",
                "use a model with a tokenizer that has them");
  return text::fim_prompt(*model.tokenizer(), f.prompts.fim[0], f.prompts.fim[1]);
}

// The rule for all that is read: prompt and continuation stand at positions that the model has.
void require_room(const infer::Engine& engine, size_t prompt, int64_t count) {
  const int64_t all = static_cast<int64_t>(prompt) + count;
  if (all <= engine.max_positions()) return;
  throw Error("generate",
              "a prompt of " + std::to_string(prompt) + " tokens and -n " + std::to_string(count) + " make " +
                  std::to_string(all) + " positions, the model has max_position_embeddings " +
                  std::to_string(engine.model().config.max_position_embeddings),
              "shorten the prompt or lower -n");
}

// What is to be written: every sample of every prompt.
struct WrittenTexts {
  const GenerateFlags& flags;
  const infer::Engine& engine;
  const infer::TextModel* text;
  const std::vector<std::vector<int32_t>>& prompts;
  const infer::GenerationOptions& options;

  size_t count() const { return prompts.size() * static_cast<size_t>(flags.samples); }
  const std::vector<int32_t>& prompt(size_t i) const { return prompts[i / static_cast<size_t>(flags.samples)]; }
  int64_t sample(size_t i) const { return static_cast<int64_t>(i) % flags.samples; }
  infer::GenerationOptions options_of(size_t i) const {
    infer::GenerationOptions o = options;
    o.sampling.seed += static_cast<uint64_t>(sample(i));
    return o;
  }
  nlohmann::json place(size_t i, const infer::Generated& g) const {
    nlohmann::json p = {
        {"prompt", i / static_cast<size_t>(flags.samples)}, {"sample", sample(i)}, {"prompt_tokens", prompt(i).size()}};
    if (options.draft > 0) p["drafted"] = g.drafted, p["accepted"] = g.accepted;
    return p;
  }
  GenerationPrinter printer(bool ids, bool held) const {
    return {flags.json_lines, ids, options.top_logprobs > 0, held};
  }
};

void say_streamed(const infer::StreamMeter& meter) {
  if (meter.tokens() > 0)
    std::fprintf(stderr, "birkhoff: streamed: %lld tokens, %.2f tokens/s, %.1f MiB a token read from the disk\n",
                 static_cast<long long>(meter.tokens()), meter.tokens_per_s(),
                 meter.disk_bytes_per_token() / (1 << 20));
}

void write_in_turn(const WrittenTexts& texts, int64_t capacity, bool ids) {
  GenerationPrinter printer = texts.printer(ids, false);
  int64_t drafted = 0, accepted = 0;
  infer::StreamMeter meter;
  const bool streamed = texts.engine.streamed().has_value();
  for (size_t i = 0; i < texts.count() && !stop_requested(); ++i) {
    infer::Session session(texts.engine, capacity);
    const infer::GenerationOptions o = texts.options_of(i);
    const infer::Generated g =
        infer::generate(session, texts.text, texts.prompt(i), o, stop_requested(), [&](const infer::GeneratedToken& t) {
          printer.token(t);
          if (streamed) t.index ? meter.add(1) : meter.begin();  // the first is the prompt's
          return true;
        });
    printer.end(g, texts.place(i, g));
    drafted += g.drafted, accepted += g.accepted;
  }
  say_accepted(drafted, accepted);
  if (streamed) say_streamed(meter);
}

// In passes together; what is written of each is what it is alone, in the order of prompts and samples.
void write_together(const WrittenTexts& texts, bool ids) {
  std::vector<GenerationPrinter> printers(texts.count(), texts.printer(ids, true));
  std::vector<std::optional<infer::Generated>> ended(texts.count());
  std::vector<uint64_t> numbers;
  std::exception_ptr failure;
  infer::SchedulerOptions options;
  options.most_sessions = texts.flags.parallel;
  infer::Scheduler scheduler(texts.engine, options);  // it ends, and tells those above, before they go
  for (size_t i = 0; i < texts.count(); ++i) {
    infer::GenerationRequest r;
    r.text = texts.text;
    r.prompt = texts.prompt(i);
    r.options = texts.options_of(i);
    r.on_token = [&printers, i](const infer::GeneratedToken& t) {
      printers[i].token(t);
      return true;
    };
    r.on_end = [&ended, i](const infer::Generated& g) { ended[i] = g; };
    r.on_error = [&failure](std::exception_ptr e) { failure = e; };
    numbers.push_back(scheduler.submit(std::move(r)));
  }
  size_t printed = 0;
  int64_t drafted = 0, accepted = 0;
  infer::StreamMeter meter;  // prompts are read in the same passes
  const auto print = [&](size_t i) {
    printers[i].end(*ended[i], texts.place(i, *ended[i]));
    drafted += ended[i]->drafted, accepted += ended[i]->accepted;
    meter.add(ended[i]->tokens);
  };
  while (!stop_requested() && !failure && scheduler.step())
    for (; printed < ended.size() && ended[printed]; ++printed) print(printed);
  for (const uint64_t number : numbers) scheduler.cancel(number);
  scheduler.step();
  for (; printed < ended.size(); ++printed)  // stopped: what was begun, as far as it got
    if (ended[printed] && ended[printed]->tokens > 0) print(printed);
  say_accepted(drafted, accepted);
  if (texts.engine.streamed()) say_streamed(meter);
  if (failure) std::rethrow_exception(failure);
}

int generate(const GenerateFlags& f, int threads) {
  infer::GenerationOptions o = f.options;
  o.draft = f.draft.most;
  o.draft_by = f.draft.drafter();
  infer::validate(o);
  o.logprobs = f.json_lines;
  if (o.top_logprobs > 0 && !f.json_lines)
    throw Error("generate", "--top-logprobs without --json", "log-probabilities are written as JSON", ExitCode::usage);
  const Prompts prompts = read_prompts(f.prompts);
  install_stop_handlers();  // what waits for its input is ended by Ctrl-C as any program is
  infer::EngineOptions options;
  options.set = f.set;
  options.compute = f.dtype;
  options.enough_positions = std::max(options.enough_positions, prompts.most_tokens() + o.max_tokens);
  options.adapter = f.adapter;
  options.threads = threads;
  f.weights.apply(options);
  f.caches.apply(options);
  f.draft.apply(options);
  if (f.parallel > 1) options.caches.prefix_bytes = INT64_MAX;
  options.progress = preparing_progress();
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  infer::require_ids(o.logits, static_cast<size_t>(engine.model().config.vocab_size));
  infer::require_drafter(engine, o);
  // Ids in, ids out: no tokenizer is needed then, and none is looked for.
  std::optional<infer::TextModel> model;
  if (!prompts.are_ids) model.emplace(engine);
  std::vector<std::vector<int32_t>> fed;
  if (prompts.are_ids) fed.push_back(prompts.ids);
  for (const std::string& text : prompts.texts) fed.push_back(encode(f, *model, text));
  size_t longest = 0;
  for (const auto& ids : fed) longest = std::max(longest, ids.size());
  require_room(engine, longest, std::max<int64_t>(o.max_tokens, 1));
  const int64_t capacity = static_cast<int64_t>(longest) + std::max<int64_t>(o.max_tokens, 1);

  if (const int64_t most = engine.caches().text_bytes(capacity); most > engine.caches().budget())
    throw Error("generate",
                "a text of " + std::to_string(capacity) + " tokens may need " + std::to_string((most >> 20) + 1) +
                    " MiB of caches, --cache-memory is " + std::to_string(engine.caches().budget() >> 20),
                "allow them more, lower -n, or choose a smaller --cache-type", ExitCode::usage);
  const WrittenTexts texts{f, engine, model ? &*model : nullptr, fed, o};
  if (f.parallel > 1)
    write_together(texts, prompts.are_ids);
  else
    write_in_turn(texts, capacity, prompts.are_ids);
  return 0;
}

void add_generation(CLI::App& verb, infer::GenerationOptions& o) {
  o.max_tokens = 200;
  verb.add_option("-n,--count", o.max_tokens, "tokens to write")
      ->check(whole_number(0, INT32_MAX))
      ->capture_default_str();
  add_sampling(verb, o.sampling, o.logits);
  verb.add_option("--stop", o.stop, "stop after this text; repeatable")->allow_extra_args(false);
  verb.add_flag("--special", o.special, "write special tokens too");
}

}  // namespace

void add_generate(CLI::App& app, Program& p) {
  auto f = std::make_shared<GenerateFlags>();
  CLI::App* verb = app.add_subcommand("generate", "Continue a prompt");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("-p,--prompt", f->prompts.prompt, "text to continue; -: standard input");
  verb->add_option("--prompt-file", f->prompts.prompt_file, "the same from a file");
  verb->add_option("--prompts", f->prompts.prompts, "JSON lines {\"prompt\": ...}: each is continued");
  verb->add_option("--tokens-file", f->prompts.tokens_file, "whitespace-separated ids; ids are written too");
  verb->add_option("--fim", f->prompts.fim, "PREFIX SUFFIX: write what belongs between the two")->expected(2);
  add_generation(*verb, f->options);
  f->draft.add(*verb);
  verb->add_option("--samples", f->samples, "continuations of each prompt, of seeds one after another")
      ->check(whole_number(1, 1000000))
      ->capture_default_str();
  verb->add_flag("--json", f->json_lines, "a line of JSON for each continuation");
  verb->add_option("--top-logprobs", f->options.top_logprobs, "with --json: the N most probable ids at every token");
  verb->add_option("--parallel", f->parallel, "continuations that are written at a time, each as it is alone")
      ->check(whole_number(1, infer::Engine::kPassTokens))
      ->capture_default_str();
  f->weights.add(*verb);
  f->caches.add(*verb);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] { p.run = [f, &p] { return generate(*f, p.thread_count()); }; });
}

}  // namespace birkhoff::apps
