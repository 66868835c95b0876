#include "infer/scheduler.h"

#include <algorithm>

#include "core/error.h"
#include "infer/prefix_cache.h"

namespace birkhoff::infer {

namespace {
// A callback that need not be there; what it throws is lost, others go on.
template <class F>
void tell(F&& call) {
  try {
    call();
  } catch (...) {
  }
}
}  // namespace

struct Scheduler::Text {
  uint64_t id = 0;
  GenerationRequest request;
  int64_t bytes = 0;  // of caches that it may come to have
  std::optional<Generation> generation;
  std::optional<Session> session;
  Generation::Input input;  // of the pass that runs

  int64_t capacity() const {
    return static_cast<int64_t>(request.prompt.size()) + std::max<int64_t>(request.options.max_tokens, 1);
  }
};

Scheduler::Scheduler(const Engine& engine, const SchedulerOptions& options) : engine_(engine), options_(options) {
  BK_CHECK(options.most_sessions > 0 && options.most_sessions <= Engine::kPassTokens && options.prompt_tokens > 0);
  engine.caches();  // by the owner, before other threads ask for their size
}

Scheduler::~Scheduler() {
  const auto waiting = std::move(submitted_);
  for (const auto& t : waiting) tell_cancelled(*t);
  for (const auto& t : running_) t->generation->cancel();
  while (!running_.empty()) end(*running_.front());
}

uint64_t Scheduler::submit(GenerationRequest request) {
  validate(request.options);
  require_drafter(engine_, request.options);
  check_ids(engine_.model().config, request.prompt);
  if (request.prompt.empty()) throw Error("scheduler", "a prompt without tokens", "give it at least one");
  auto text = std::make_unique<Text>();
  text->request = std::move(request);
  if (!text->request.on_end) text->request.on_end = [](const Generated&) {};
  if (!text->request.on_error) text->request.on_error = [](std::exception_ptr) {};
  const int64_t capacity = text->capacity();
  if (capacity > engine_.max_positions())
    throw Error("scheduler",
                "a prompt of " + std::to_string(text->request.prompt.size()) + " tokens and " +
                    std::to_string(text->request.options.max_tokens) + " to write make " + std::to_string(capacity) +
                    " positions, the engine allows " + std::to_string(engine_.max_positions()),
                "shorten the prompt or ask for fewer tokens");
  const std::lock_guard lock(mutex_);
  text->bytes = engine_.caches().text_bytes(capacity);
  if (text->bytes > engine_.caches().budget())
    throw Error("scheduler",
                "a text of " + std::to_string(capacity) + " tokens may need " + std::to_string(text->bytes) +
                    " bytes of caches, all together have " + std::to_string(engine_.caches().budget()),
                "ask for fewer tokens, allow caches more memory, or choose a smaller type for them");
  text->id = ++next_id_;
  submitted_.push_back(std::move(text));
  wake_.notify_one();
  return next_id_;
}

void Scheduler::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(id);
  wake_.notify_one();
}

void Scheduler::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  wake_.notify_all();
}

Scheduler::State Scheduler::state() const {
  const std::lock_guard lock(mutex_);
  State s = state_;
  s.waiting = static_cast<int64_t>(submitted_.size());
  return s;
}

// Of a text that never began.
void Scheduler::tell_cancelled(const Text& t) {
  Generated none;
  none.finish = Finish::cancelled;
  tell([&] { t.request.on_end(none); });
}

// Of a text that waits for nobody who would give room.
void Scheduler::refuse(const Text& t) const {
  const Error error("scheduler",
                    "a text may need " + std::to_string(t.bytes) + " bytes of caches, sessions beside the scheduler " +
                        "leave it less of " + std::to_string(engine_.caches().budget()),
                    "end such sessions, or allow caches more memory", ExitCode::failed);
  tell([&] { t.request.on_error(std::make_exception_ptr(error)); });
}

void Scheduler::cancel_asked() {
  std::set<uint64_t> asked;
  std::vector<std::unique_ptr<Text>> waiting;
  {
    const std::lock_guard lock(mutex_);
    asked.swap(cancelled_);
    const auto gone = [&](const auto& t) { return asked.contains(t->id); };
    const auto first = std::stable_partition(submitted_.begin(), submitted_.end(), std::not_fn(gone));
    std::move(first, submitted_.end(), std::back_inserter(waiting));
    submitted_.erase(first, submitted_.end());
  }
  for (const auto& t : waiting) tell_cancelled(*t);
  for (auto at = running_.begin(); at != running_.end();) {
    Text& t = **at++;
    if (!asked.contains(t.id)) continue;
    t.generation->cancel();
    end(t);
  }
}

// False: it has ended with an error.
bool Scheduler::start(Text& t) {
  try {
    const GenerationRequest& r = t.request;
    require_ids(r.options.logits, static_cast<size_t>(engine_.model().config.vocab_size));
    t.session.emplace(engine_, t.capacity());
    t.session->set_scope(r.scope);
    t.generation.emplace(r.text, r.prompt, r.options, r.on_token);
    const int64_t known = t.session->recall(r.prompt);
    t.generation->skip(static_cast<size_t>(known));
    const std::lock_guard lock(mutex_);
    state_.reused_tokens += known;
    return true;
  } catch (...) {
    t.session.reset();
    tell([&, error = std::current_exception()] { t.request.on_error(error); });
    return false;
  }
}

// Bytes of caches that sessions have which are not the scheduler's. What is kept of prompts alone goes when others need
// it.
int64_t Scheduler::held_by_others() const {
  const model::CachePool& pool = engine_.caches();
  std::vector<int32_t> pages;
  int64_t own = 0;
  for (const auto& t : running_) {
    const auto of_text = t->session->cache().pages();
    pages.insert(pages.end(), of_text.begin(), of_text.end());
    own += pool.slot_bytes(t->session->capacity());
  }
  std::sort(pages.begin(), pages.end());
  own += std::distance(pages.begin(), std::unique(pages.begin(), pages.end())) * pool.page_bytes();
  const PrefixCache* prefixes = engine_.prefixes();
  return pool.used() - own - (prefixes ? prefixes->unused_bytes() : 0);
}

void Scheduler::admit() {
  for (;;) {
    std::unique_ptr<Text> next;
    bool room = true;
    {
      const std::lock_guard lock(mutex_);
      if (submitted_.empty() || static_cast<int64_t>(running_.size()) >= options_.most_sessions) return;
      room = reserved_ + submitted_.front()->bytes + held_by_others() <= engine_.caches().budget();
      if (!room && !running_.empty()) return;
      next = std::move(submitted_.front());
      submitted_.pop_front();
    }
    if (!room) {
      refuse(*next);
      continue;
    }
    if (!start(*next)) continue;
    reserved_ += next->bytes;
    running_.push_back(std::move(next));
    const std::lock_guard lock(mutex_);
    state_.running = static_cast<int64_t>(running_.size());
  }
}

// Of at most `most` ids each. Where it fails nothing can be read either: the texts end.
void Scheduler::draft_for(std::vector<Text*>& writing, size_t most) {
  std::vector<Drafting> texts;
  for (Text* t : writing) texts.push_back({&*t->generation, &*t->session, most});
  try {
    draft(engine_, texts);
  } catch (...) {
    for (Text* t : writing) end(*t, std::current_exception());
    writing.clear();
  }
}

// The pieces of the next pass: every text that writes, then prompts, each an equal share of what is left. Whoever was
// first is last the next time.
std::vector<Scheduler::Text*> Scheduler::choose(std::vector<BatchPiece>& pieces) {
  std::vector<Text*> writing, reading, chosen;
  for (const auto& t : running_) (t->generation->reads_prompt() ? reading : writing).push_back(t.get());
  int64_t left = Engine::kPassTokens;
  const auto add = [&](Text& t, int64_t most) {
    t.input = t.generation->next(static_cast<size_t>(most));
    pieces.push_back({&*t.session, t.input.ids, t.input.role, t.input.rows});
    left -= static_cast<int64_t>(t.input.ids.size());
    chosen.push_back(&t);
  };
  // What is drafted leaves prompts their share.
  const int64_t written = left - (reading.empty() ? 0 : options_.prompt_tokens),
                each = writing.empty() ? 0 : written / static_cast<int64_t>(writing.size());
  draft_for(writing, static_cast<size_t>(std::max<int64_t>(0, each - 1)));
  for (Text* t : writing)
    if (left > 0) add(*t, left);
  if (!writing.empty()) left = std::min(left, options_.prompt_tokens);
  if (reading.empty()) return chosen;
  std::rotate(reading.begin(), reading.begin() + static_cast<int64_t>(first_prompt_++ % reading.size()), reading.end());
  for (size_t i = 0; i < reading.size() && left > 0; ++i)
    add(*reading[i], std::max<int64_t>(1, left / static_cast<int64_t>(reading.size() - i)));
  return chosen;
}

void Scheduler::take(Text& t, std::vector<std::vector<float>>& rows) {
  try {
    for (const auto& row : rows) require_finite(row, t.session->length() - 1);
    const size_t forget = t.generation->take([&](size_t i) { return std::span<const float>(rows[i]); });
    t.session->rewind(t.session->length() - static_cast<int64_t>(forget));
  } catch (...) {
    return end(t, std::current_exception());
  }
  if (t.generation->done()) end(t);
}

// Its caches are free when the caller hears of it.
void Scheduler::end(Text& t, std::exception_ptr error) {
  const auto at = std::find_if(running_.begin(), running_.end(), [&](const auto& r) { return r.get() == &t; });
  const std::unique_ptr<Text> ended = std::move(*at);
  running_.erase(at);
  reserved_ -= ended->bytes;
  ended->session.reset();
  {
    const std::lock_guard lock(mutex_);
    state_.running = static_cast<int64_t>(running_.size());
  }
  if (error)
    tell([&] { ended->request.on_error(error); });
  else
    tell([&] { ended->request.on_end(ended->generation->finish()); });
}

bool Scheduler::step() {
  cancel_asked();
  admit();
  if (running_.empty()) {
    const std::lock_guard lock(mutex_);
    return !submitted_.empty();
  }
  std::vector<BatchPiece> pieces;
  const std::vector<Text*> chosen = choose(pieces);
  if (pieces.empty()) return true;  // all have failed
  std::vector<std::vector<std::vector<float>>> rows(chosen.size());
  try {
    run_batch(engine_, pieces, [&](size_t piece, int64_t, std::span<const float> logits) {
      rows[piece].emplace_back(logits.begin(), logits.end());
    });
  } catch (...) {  // of what they were to read next nothing was: none of them can go on
    for (Text* t : chosen) end(*t, std::current_exception());
    return true;
  }
  {
    const std::lock_guard lock(mutex_);
    ++state_.passes;
    for (const BatchPiece& p : pieces)
      (p.role == TokenRole::prompt ? state_.prompt_tokens : state_.written_tokens) +=
          static_cast<int64_t>(p.ids.size());
  }
  for (size_t i = 0; i < chosen.size(); ++i) take(*chosen[i], rows[i]);
  return true;
}

void Scheduler::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopped_ || !submitted_.empty() || !running_.empty(); });
      if (stopped_) return;
    }
    step();
  }
}

}  // namespace birkhoff::infer
