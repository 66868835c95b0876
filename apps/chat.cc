#include <cstdio>

#include "apps/chat_session.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "text/chat/conversation_file.h"

namespace birkhoff::apps {
namespace {

using text::chat::ChatFormat;

struct ChatFlags {
  WeightFlags weights;
  CacheFlags caches;
  std::string model, system, tools, chat_template, encoder, dtype;
  std::vector<std::string> set;
  int64_t context = 0;
  DraftFlags draft;
  infer::ReplyOptions reply;
};

ChatFormat open_format(const infer::Engine& engine, const ChatFlags& f) {
  return f.encoder.empty() ? ChatFormat::open(engine.directory(), f.chat_template) : ChatFormat::native(f.encoder);
}

}  // namespace

void add_chat(CLI::App& app, Program& p) {
  auto f = std::make_shared<ChatFlags>();
  CLI::App* verb = app.add_subcommand("chat", "A conversation with a model in the terminal");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file with a tokenizer")
      ->required();
  verb->add_option("--system", f->system, "system message");
  auto* file = verb->add_option("--template", f->chat_template, "Jinja file to use instead of the directory's own");
  verb->add_option("--encoder", f->encoder, "v3.2 or v4: a format without a template")->excludes(file);
  verb->add_option("--tools", f->tools, "JSON file with a list of tools");
  verb->add_flag("--think", f->reply.thinking, "let the model think first");
  verb->add_option("-n,--count", f->reply.max_tokens, "longest answer in tokens; 0: what fits")
      ->check(whole_number(0, INT32_MAX))
      ->capture_default_str();
  verb->add_option("--context", f->context, "longest conversation in tokens; default: the model's, at most 4096")
      ->check(whole_number(1, INT32_MAX));
  add_sampling(*verb, f->reply.sampling, f->reply.logits);
  f->draft.add(*verb);
  f->weights.add(*verb);
  f->caches.add(*verb);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      infer::validate(f->reply.sampling);
      infer::validate(f->reply.logits);
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.set = f->set;
      options.threads = p.thread_count();
      f->weights.apply(options);
      f->caches.apply(options);
      f->draft.apply(options);
      f->reply.draft = f->draft.most, f->reply.draft_by = f->draft.drafter();
      options.progress = preparing_progress();
      if (f->context) options.enough_positions = f->context;
      const infer::Engine engine(f->model, options);
      if (f->context > engine.max_positions())
        throw Error("chat",
                    "--context " + std::to_string(f->context) + ": the model has max_position_embeddings " +
                        std::to_string(engine.max_positions()),
                    "lower it, or leave it out", ExitCode::usage);
      if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
      infer::require_ids(f->reply.logits, static_cast<size_t>(engine.model().config.vocab_size));
      infer::Conversation conversation(engine, open_format(engine, *f));
      if (!f->system.empty()) conversation.set_system(f->system);
      if (!f->tools.empty()) conversation.set_tools(text::chat::read_tools(f->tools));
      listen_to_interrupts();
      std::vector<std::string> read = files_of_model(f->model, engine.directory());
      read.insert(read.end(), {f->tools, f->chat_template});
      ChatSession(conversation, f->reply, std::move(read)).run();
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
