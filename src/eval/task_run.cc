#include "eval/task_run.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "infer/prefix_cache.h"
#include "infer/scheduler.h"
#include "text/chat/answer_parser.h"
#include "text/unicode/utf8.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

// Texts that are encoded at a time.
constexpr size_t kWindowBytes = size_t{16} << 20;
constexpr int64_t kPromptTokensBesideWriting = 448;

Value message(const Turn& t) {
  auto d = std::make_shared<text::chat::DictObject>();
  d->set("role", Value::string(t.role));
  d->set("content", Value::string(t.content));
  return Value::dict(d);
}

// A beginning of the answer, where the last turn is one, follows what opens it.
PromptText rendered(const std::vector<Turn>& turns, const AskOptions& o) {
  const bool begun = !turns.empty() && turns.back().role == "assistant";
  std::vector<Value> messages;
  for (size_t i = 0; i < turns.size() - (begun ? 1 : 0); ++i) messages.push_back(message(turns[i]));
  PromptText p{o.format->render(text::chat::mark_content(Value::list(std::move(messages))), Value(),
                                text::chat::prompt_options(*o.format, o.thinking)),
               true};
  if (begun) p.text.append(turns.back().content, true);
  return p;
}

PromptText context_of(const Question& q, const AskOptions& o) {
  if (!q.turns.empty()) return rendered(q.turns, o);
  return {text::chat::MaskedText(q.context), false};
}

// Requests of one question, as they are read.
struct Request {
  PromptEncoder::Encoded encoded;
  std::string key;
  ChoiceAnswer* answer;
};
struct WrittenRequest {
  PromptEncoder::Prompt prompt;
  std::string key;
  Answered* answer;
};

class Asking {
 public:
  Asking(const infer::Engine& engine, const infer::TextModel& text, const Task& task, const AskOptions& options,
         AnswerStore& store, AskCounts& counts, const std::function<void(int64_t)>& advance,
         const std::atomic<bool>& cancel)
      : engine_(engine),
        text_(text),
        task_(task),
        o_(options),
        store_(store),
        counts_(counts),
        advance_(advance),
        cancel_(cancel),
        encoder_(text, options.max_length) {
    if (!o_.thinking) stops_ = task.until;
    if (const auto& t = text.tokenizer(); t && t->eos())
      if (const auto word = t->token(*t->eos()); word && !word->empty()) stops_.push_back(*word);
  }

  // Questions [begin, end) of all of them.
  void window(std::span<const Question> questions, std::span<Answered> answers, int64_t done_before) {
    std::vector<std::vector<Request>> scored(questions.size());
    std::vector<WrittenRequest> written(task_.generates() ? questions.size() : 0);
    engine_.exec().parallel_for(static_cast<int64_t>(questions.size()), [&](int64_t n) {
      const auto i = static_cast<size_t>(n);
      about_question(questions[i], [&] {
        const PromptText context = context_of(questions[i], o_);
        scored[i] = continuations_of(questions[i], context, answers[i]);
        if (task_.generates()) written[i] = written_of(context, answers[i]);
      });
    });
    score(scored, done_before);
    write(written, done_before);
    for (size_t i = 0; i < questions.size(); ++i) take_right(questions[i], answers[i]);
  }

 private:
  template <class F>
  void about_question(const Question& q, F&& f) const {
    try {
      f();
    } catch (const Error& e) {
      throw Error(e.where(), task_.name + ", document " + std::to_string(q.doc_id) + ": " + e.said(), e.hint(),
                  e.code());
    }
  }

  std::vector<Request> continuations_of(const Question& q, const PromptText& context, Answered& a) const {
    std::vector<Request> all;
    const auto add = [&](const PromptText& before, const std::string& continuation, ChoiceAnswer& answer) {
      Request r{encoder_.continuation(before, continuation), "", &answer};
      r.key = request_key(o_.model, r.encoded.continuation);
      answer.tokens = static_cast<int64_t>(r.encoded.continuation.ids.size() - r.encoded.continuation.first);
      answer.cut = r.encoded.cut;
      all.push_back(std::move(r));
    };
    a.choices.resize(q.continuations.size());
    for (size_t i = 0; i < q.continuations.size(); ++i) add(context, q.continuations[i], a.choices[i]);
    if (task_.scoring.needs_alone()) {
      a.alone.resize(q.continuations.size());
      for (size_t i = 0; i < q.continuations.size(); ++i) add({}, q.continuations[i], a.alone[i]);
    }
    if (task_.generates() && !q.answer.empty()) add(context, q.answer, a.right);
    return all;
  }

  WrittenRequest written_of(const PromptText& context, Answered& a) const {
    WrittenRequest r{encoder_.prompt(context, max_tokens()), "", &a};
    a.text_cut = r.prompt.cut;
    r.key = request_key(o_.model, r.prompt.ids, stops_, max_tokens());
    return r;
  }

  int64_t max_tokens() const { return o_.max_tokens.value_or(task_.max_tokens); }

  void count(size_t tokens, int64_t cut) {
    ++counts_.requests;
    counts_.cut += cut > 0;
    counts_.prompt_tokens += static_cast<int64_t>(tokens);
  }

  void score(std::vector<std::vector<Request>>& questions, int64_t done_before) {
    std::vector<Continuation> missing;
    std::vector<std::pair<size_t, const Request*>> of;  // question and request of what is missing
    std::vector<size_t> open(questions.size());         // requests without an answer
    std::unordered_map<std::string, std::vector<size_t>> same;
    for (size_t q = 0; q < questions.size(); ++q)
      for (Request& r : questions[q]) {
        count(r.encoded.continuation.ids.size() - 1, r.encoded.cut);
        counts_.answers_cut += r.encoded.answer_cut > 0;
        if (const ContinuationScore* known = store_.score(r.key)) {
          r.answer->score = *known;
          ++counts_.kept;
          continue;
        }
        ++open[q];
        std::vector<size_t>& twins = same[r.key];
        twins.push_back(of.size());
        of.emplace_back(q, &r);
        missing.push_back(twins.size() == 1 ? std::move(r.encoded.continuation) : Continuation());
      }
    std::vector<Continuation> fresh;
    std::vector<const std::vector<size_t>*> twins_of;
    for (size_t i = 0; i < missing.size(); ++i)
      if (!missing[i].ids.empty()) {
        fresh.push_back(std::move(missing[i]));
        twins_of.push_back(&same.at(of[i].second->key));
      }
    int64_t done = done_before + (task_.generates() ? 0 : std::count(open.begin(), open.end(), size_t{0}));
    advance_(done);
    const auto answered = [&](size_t i, const ContinuationScore& s) {
      const std::vector<size_t>& twins = *twins_of[i];
      store_.add(of[twins.front()].second->key, s);
      for (const size_t t : twins) {
        of[t].second->answer->score = s;
        if (--open[of[t].first] == 0 && !task_.generates()) advance_(++done);
      }
    };
    const Timer timer(counts_.seconds);
    counts_.read_tokens += score_continuations(engine_, fresh, answered, cancel_).tokens;
  }

  // What is written of one text, so far.
  struct Writing {
    const WrittenRequest* request;
    std::string text;
  };

  void write(const std::vector<WrittenRequest>& requests, int64_t done_before) {
    std::vector<Writing> writings;
    for (const WrittenRequest& r : requests) {
      count(r.prompt.ids.size(), r.prompt.cut);
      if (const AnswerStore::Written* known = store_.text(r.key)) {
        take_text(r, *known);
        ++counts_.kept;
      } else {
        writings.push_back({&r, {}});
      }
    }
    if (requests.empty()) return;
    int64_t done = done_before + static_cast<int64_t>(requests.size() - writings.size());
    advance_(done);
    const Timer timer(counts_.seconds);
    infer::SchedulerOptions scheduling;
    scheduling.prompt_tokens = kPromptTokensBesideWriting;
    infer::Scheduler scheduler(engine_, scheduling);
    std::exception_ptr failure;
    for (Writing& w : writings) scheduler.submit(generation_of(w, done, failure));
    while (!cancel_ && !failure && scheduler.step()) {
    }
    if (failure) std::rethrow_exception(failure);
    const infer::Scheduler::State s = scheduler.state();
    counts_.read_tokens += s.prompt_tokens, counts_.written_tokens += s.written_tokens;
  }

  infer::GenerationRequest generation_of(Writing& w, int64_t& done, std::exception_ptr& failure) {
    infer::GenerationRequest r;
    r.text = &text_;
    r.prompt = w.request->prompt.ids;
    r.options.sampling.temperature = 0;
    r.options.max_tokens = max_tokens();
    r.options.stop = stops_;
    r.options.follows_prompt = false;  // the reference decodes what was written by itself
    r.on_token = [&w](const infer::GeneratedToken& t) {
      w.text += t.text;
      return true;
    };
    r.on_end = [this, &w, &done, &failure](const infer::Generated& g) {
      if (g.finish == infer::Finish::cancelled) return;
      try {
        const AnswerStore::Written answer{text::replace_invalid(w.text + g.rest), g.tokens};
        store_.add(w.request->key, answer);
        take_text(*w.request, answer);
        advance_(++done);
      } catch (...) {  // the scheduler loses what its callbacks throw
        failure = std::current_exception();
      }
    };
    r.on_error = [&failure](std::exception_ptr e) { failure = e; };
    return r;
  }

  void take_text(const WrittenRequest& r, const AnswerStore::Written& w) const {
    std::string text = w.text;
    if (o_.format) {
      text::chat::AnswerParser parser("", o_.thinking);
      parser.feed(text);
      parser.finish();
      text = parser.answer().content;
    }
    r.answer->text = cut_at_stops(std::move(text), task_.until);
    if (!stops_.empty()) r.answer->text = cut_at_stops(std::move(r.answer->text), {stops_.back()});
    r.answer->text_tokens = w.tokens;
  }

  void take_right(const Question& q, Answered& a) const {
    if (q.gold >= 0 && static_cast<size_t>(q.gold) < a.choices.size()) a.right = a.choices[static_cast<size_t>(q.gold)];
  }

  // Adds the seconds of its life.
  class Timer {
   public:
    explicit Timer(double& seconds) : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
    ~Timer() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    double& seconds_;
    std::chrono::steady_clock::time_point start_;
  };

  const infer::Engine& engine_;
  const infer::TextModel& text_;
  const Task& task_;
  const AskOptions& o_;
  AnswerStore& store_;
  AskCounts& counts_;
  const std::function<void(int64_t)>& advance_;
  const std::atomic<bool>& cancel_;
  PromptEncoder encoder_;
  std::vector<std::string> stops_;  // of what is written: the task's and the text of the end token
};

// Where answers are written prompts are read twice, to score the right answer and to go on: the second time they are
// found in the prefix cache. No token is shorter than a byte.
size_t window_bytes(const infer::Engine& engine, const Task& task) {
  const infer::PrefixCache* prefixes = engine.prefixes();
  const int64_t page = engine.caches().page_bytes();
  if (!task.generates() || !prefixes || page == 0) return kWindowBytes;
  const int64_t kept = std::min(prefixes->budget(), engine.caches().budget() / 2);
  return std::min(kWindowBytes, static_cast<size_t>(kept / page * ops::kPageRows));
}

size_t bytes_of(const Question& q) {
  size_t n = q.context.size();
  for (const Turn& t : q.turns) n += t.content.size();
  for (const std::string& c : q.continuations) n += q.context.size() + c.size();
  return n;
}

}  // namespace

std::vector<Answered> ask(const infer::Engine& engine, const infer::TextModel& text, const Task& task,
                          const std::vector<Question>& questions, const AskOptions& options, AnswerStore& store,
                          AskCounts& counts, const std::function<void(int64_t)>& advance,
                          const std::atomic<bool>& cancel) {
  std::vector<Answered> answers(questions.size());
  Asking asking(engine, text, task, options, store, counts, advance, cancel);
  const size_t most = window_bytes(engine, task);
  size_t begin = 0;
  while (begin < questions.size() && !cancel) {
    size_t end = begin, bytes = 0;
    while (end < questions.size() && (end == begin || bytes < most)) bytes += bytes_of(questions[end++]);
    asking.window(std::span(questions).subspan(begin, end - begin), std::span(answers).subspan(begin, end - begin),
                  static_cast<int64_t>(begin));
    begin = end;
  }
  if (cancel) answers.clear();
  return answers;
}

}  // namespace birkhoff::eval
