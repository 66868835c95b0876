#include "api/birkhoff.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/exec.h"
#include "infer/scheduler.h"
#include "infer/session.h"
#include "infer/text_model.h"
#include "text/chat/answer_parser.h"
#include "text/chat/chat_format.h"
#include "text/chat/marked_encode.h"
#include "text/jinja/json_value.h"

namespace birkhoff::api {
namespace {

using text::chat::Value;

Failure failure_of(std::exception_ptr e) {
  try {
    std::rethrow_exception(e);
  } catch (const Error& error) {
    return {error.where(), error.said(), error.hint()};
  } catch (const std::bad_alloc&) {
    return {"memory", "the system has no more", "use a smaller model or shorter texts"};
  } catch (const std::exception& error) {
    return {"birkhoff", error.what(), ""};
  } catch (...) {
    return {"birkhoff", "what a callback threw", ""};
  }
}

// f(), or what it throws.
template <class F, class T = std::invoke_result_t<F>>
Result<T> attempt(F&& f) {
  try {
    return f();
  } catch (...) {
    return failure_of(std::current_exception());
  }
}
template <class F>
Done attempt_done(F&& f) {
  return attempt([&] {
    f();
    return std::monostate{};
  });
}

infer::EngineOptions engine_options(const EngineOptions& o) {
  for (const int64_t n : {o.cache_bytes, o.prefix_bytes, o.max_tokens})
    if (n < 0) throw Error("engine", "a size of " + std::to_string(n), "sizes are not negative; 0 leaves the choice");
  infer::EngineOptions e;
  e.adapter = o.adapter;
  e.compute = o.dtype;
  e.max_positions = o.max_tokens;
  e.threads = o.threads > 0 ? o.threads : cpu_cores();
  e.progress = o.progress;
  e.weights = model::WeightFormats::named(o.weights, o.head_weights);
  e.panels = o.panels;
  e.stream = o.stream;
  e.caches.bytes = o.cache_bytes;
  e.caches.prefix_bytes = o.prefix_bytes;
  const auto how = find_named<model::LatentAttention>(o.mla);
  if (!how) throw Error("mla", "unknown form \"" + o.mla + "\"", "one of auto, expanded, absorbed");
  e.latent_attention = *how;
  e.caches.predictors = o.predictors;
  if (o.cache_type.empty()) return e;
  e.caches.type = ops::find_cache_type(o.cache_type);
  if (!e.caches.type) throw Error("cache", "unknown type \"" + o.cache_type + "\"", "one of fp32, bf16, int8");
  return e;
}

infer::GenerationOptions generation_options(const GenerationOptions& o) {
  infer::GenerationOptions g;
  g.max_tokens = o.max_tokens;
  g.sampling.temperature = o.temperature;
  g.sampling.top_p = o.top_p;
  g.sampling.min_p = o.min_p;
  g.sampling.typical_p = o.typical_p;
  g.sampling.top_k = o.top_k;
  g.sampling.seed = o.seed;
  g.logits.repetition_penalty = o.repetition_penalty;
  g.logits.presence_penalty = o.presence_penalty;
  g.logits.frequency_penalty = o.frequency_penalty;
  g.logits.bias = o.logit_bias;
  g.logits.mask = o.mask;
  g.stop = o.stop;
  g.turn_end = o.turn_end;
  g.special = o.special;
  g.logprobs = o.logprobs;
  g.top_logprobs = o.top_logprobs;
  g.draft = o.draft;
  g.draft_by = o.draft_by_predictors ? infer::DraftBy::mtp : infer::DraftBy::ngram;
  return g;
}

infer::Generation::OnToken token_callback(std::function<bool(const Token&)> f) {
  return [f = std::move(f)](const infer::GeneratedToken& t) {
    return !f || f({t.index, t.id, t.ends, t.text, t.logprob, t.top});
  };
}
Written written_of(const infer::Generated& g) {
  return {static_cast<Finish>(g.finish), g.tokens, g.rest, g.drafted, g.accepted};
}
infer::SchedulerOptions scheduler_options(int64_t most_texts) {
  infer::SchedulerOptions o;
  o.most_sessions = std::clamp<int64_t>(most_texts, 1, infer::Engine::kPassTokens);
  return o;
}
infer::TokenRole role_of(Role r) { return r == Role::prompt ? infer::TokenRole::prompt : infer::TokenRole::generated; }

}  // namespace

struct Engine::Impl {
  infer::Engine engine;
  std::optional<infer::TextModel> text;  // of a model that has one
  std::optional<text::chat::ChatFormat> format;

  Impl(const std::string& path, const EngineOptions& o) : engine(path, engine_options(o)) {
    const int64_t most = engine.model().config.max_position_embeddings;
    if (o.max_tokens > most)
      throw Error(
          "engine",
          std::to_string(o.max_tokens) + " tokens, the model has max_position_embeddings " + std::to_string(most),
          "ask for fewer");
    if (infer::TextModel::has_text(engine)) text.emplace(engine);
  }
  const infer::TextModel* text_or_null() const { return text ? &*text : nullptr; }
  const infer::TextModel& needed_text() const {
    if (!text)
      throw Error("tokenizer", engine.directory() + ": the model has none", "put tokenizer.json beside the weights");
    return *text;
  }
  const text::chat::ChatFormat& chat() {
    if (!format) format = text::chat::ChatFormat::open(engine.directory());
    return *format;
  }
};

struct Session::Impl {
  std::shared_ptr<Engine::Impl> engine;  // which it outlives
  infer::Session session;
};

Result<Engine> Engine::open(const std::string& path, const EngineOptions& options) {
  return attempt([&] { return Engine(std::make_shared<Impl>(path, options)); });
}
int64_t Engine::vocabulary() const { return impl_->engine.model().config.vocab_size; }
int64_t Engine::max_tokens() const { return impl_->engine.max_positions(); }
std::string Engine::note() const { return impl_->engine.note(); }

Result<std::vector<int32_t>> Engine::encode(std::string_view text) const {
  return attempt([&] { return impl_->needed_text().prompt(text); });
}

Result<std::string> Engine::decode(std::span<const int32_t> ids) const {
  return attempt([&] {
    infer::check_ids(impl_->engine.model().config, ids);
    infer::TextWriter writer(impl_->needed_text(), {}, false);
    std::string text;
    for (const int32_t id : ids) text += writer.push(id);
    return text + writer.finish();
  });
}

Result<ChatPrompt> Engine::chat_prompt(const std::string& messages, const std::string& tools, bool thinking) const {
  return attempt([&] {
    const auto& tokenizer = impl_->needed_text().tokenizer();
    if (!tokenizer) throw Error("chat", "the model reads bytes", "conversations need the tokens of a chat format");
    const text::chat::MaskedText prompt =
        impl_->chat().render(text::chat::parse_json(messages), tools.empty() ? Value() : text::chat::parse_json(tools),
                             text::chat::prompt_options(impl_->chat(), thinking));
    ChatPrompt out;
    out.ids = text::chat::encode_marked(*tokenizer, prompt);
    if (!impl_->chat().eos().empty()) out.turn_end = tokenizer->id(impl_->chat().eos());
    out.in_thought = text::chat::opens_thought(prompt.bytes());
    return out;
  });
}

Result<Answer> Engine::parse_answer(std::string_view text, bool in_thought) const {
  return attempt([&] {
    text::chat::AnswerParser parser(impl_->chat().parser(), in_thought);
    parser.feed(text);
    parser.finish();
    Answer out{parser.answer().content, parser.answer().reasoning, {}};
    for (const text::chat::ToolCall& call : parser.answer().calls) out.calls.push_back({call.name, call.arguments});
    return out;
  });
}

Result<std::vector<double>> Engine::log_probabilities(std::span<const int32_t> ids) const {
  return attempt([&] {
    std::vector<double> out;
    impl_->engine.full_logits(ids, [&](int64_t t, std::span<const float> logits) {
      const auto next = static_cast<size_t>(t) + 1;
      if (next < ids.size()) out.push_back(infer::log_probability(logits, ids[next]));
    });
    return out;
  });
}

Result<std::vector<float>> Engine::hidden_states(std::span<const int32_t> ids) const {
  return attempt([&] { return impl_->engine.full_hidden(ids); });
}

Result<Session> Engine::session(int64_t capacity) const {
  return attempt([&] {
    return Session(std::make_shared<Session::Impl>(
        Session::Impl{impl_, infer::Session(impl_->engine, capacity > 0 ? capacity : max_tokens())}));
  });
}

Result<Session> Engine::restore(const std::string& file) const {
  return attempt([&] {
    return Session(std::make_shared<Session::Impl>(Session::Impl{impl_, infer::Session::restore(impl_->engine, file)}));
  });
}

int64_t Session::length() const { return impl_->session.length(); }
int64_t Session::capacity() const { return impl_->session.capacity(); }
std::vector<int32_t> Session::ids() const { return {impl_->session.ids().begin(), impl_->session.ids().end()}; }

Result<std::vector<float>> Session::feed(std::span<const int32_t> ids, Role role) {
  return attempt([&] {
    const auto logits = impl_->session.feed(ids, role_of(role));
    return std::vector<float>(logits.begin(), logits.end());
  });
}

Result<int64_t> Session::keep_common(std::span<const int32_t> ids) {
  return attempt([&] {
    infer::Session& s = impl_->session;
    const size_t most = std::min(s.ids().size(), std::max<size_t>(ids.size(), 1) - 1);
    const auto held = s.ids().first(most);
    const int64_t common = std::mismatch(held.begin(), held.end(), ids.begin()).first - held.begin();
    if (!s.rewind(common)) s.rewind(0);
    return s.length();
  });
}

Done Session::rewind(int64_t tokens) {
  return attempt_done([&] {
    if (tokens < 0 || tokens > length())
      throw Error("session", "back to " + std::to_string(tokens) + " tokens of " + std::to_string(length()));
    if (!impl_->session.rewind(tokens))
      throw Error("session", "the model cannot go back to token " + std::to_string(tokens),
                  "fork before, or begin anew");
  });
}

Result<Session> Session::fork() const {
  return attempt([&] { return Session(std::make_shared<Impl>(Impl{impl_->engine, impl_->session.fork()})); });
}

Done Session::save(const std::string& file) const {
  return attempt_done([&] { impl_->session.save(file); });
}

Result<Written> Session::generate(std::span<const int32_t> prompt, const GenerationOptions& options,
                                  const std::function<bool(const Token&)>& on_token, const std::atomic<bool>* cancel) {
  static const std::atomic<bool> kNever{false};
  return attempt([&] {
    infer::GenerationOptions o = generation_options(options);
    infer::validate(o);
    infer::require_ids(o.logits, static_cast<size_t>(impl_->engine->engine.model().config.vocab_size));
    if (prompt.empty() && o.max_tokens > 0) throw Error("session", "a prompt without tokens", "give it at least one");
    const std::vector<int32_t> before = ids();
    o.read_before = before;
    return written_of(infer::generate(impl_->session, impl_->engine->text_or_null(), prompt, o,
                                      cancel ? *cancel : kNever, token_callback(on_token)));
  });
}

Done feed_together(std::span<Piece> pieces) {
  return attempt_done([&] {
    std::vector<infer::BatchPiece> all;
    int64_t tokens = 0;
    for (const Piece& p : pieces) {
      if (!p.session || p.session->impl_->engine != pieces.front().session->impl_->engine)
        throw Error("session", "a piece without a session of the first one's engine");
      all.push_back({&p.session->impl_->session, p.ids, role_of(p.role)});
      tokens += static_cast<int64_t>(p.ids.size());
    }
    if (all.empty()) return;
    if (tokens > infer::Engine::kPassTokens)
      throw Error("session",
                  std::to_string(tokens) + " tokens in a pass, it takes " + std::to_string(infer::Engine::kPassTokens),
                  "feed them in several");
    for (size_t i = 0; i < all.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (all[i].session == all[j].session)
          throw Error("session", "pieces " + std::to_string(j) + " and " + std::to_string(i) + " are of one session",
                      "join them");
    infer::run_batch(all.front().session->engine(), all, [&](size_t i, int64_t, std::span<const float> logits) {
      infer::require_finite(logits, pieces[i].session->length() - 1);
      pieces[i].logits.assign(logits.begin(), logits.end());
    });
  });
}

struct Writer::Impl {
  std::shared_ptr<Engine::Impl> engine;
  infer::Scheduler scheduler;
  Impl(std::shared_ptr<Engine::Impl> e, const infer::SchedulerOptions& o)
      : engine(std::move(e)), scheduler(engine->engine, o) {}
};

Result<Writer> Writer::make(const Engine& engine, int64_t most_texts) {
  return attempt([&] { return Writer(std::make_shared<Impl>(engine.impl_, scheduler_options(most_texts))); });
}

Result<uint64_t> Writer::submit(Text text) {
  return attempt([&] {
    infer::GenerationRequest r;
    r.text = impl_->engine->text_or_null();
    r.prompt = std::move(text.prompt);
    r.options = generation_options(text.options);
    r.scope = text.scope;
    r.on_token = token_callback(std::move(text.on_token));
    const auto on_end = std::move(text.on_end);
    r.on_end = [on_end](const infer::Generated& g) {
      if (on_end) on_end(written_of(g));
    };
    r.on_error = [on_end](std::exception_ptr e) {
      if (on_end) on_end(failure_of(e));
    };
    return impl_->scheduler.submit(std::move(r));
  });
}
void Writer::cancel(uint64_t text) { impl_->scheduler.cancel(text); }
bool Writer::step() { return impl_->scheduler.step(); }
void Writer::run() { impl_->scheduler.run(); }
void Writer::stop() { impl_->scheduler.stop(); }

}  // namespace birkhoff::api
