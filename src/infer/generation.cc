#include "infer/generation.h"

#include <algorithm>

#include "core/error.h"
#include "ops/rows/cross_entropy.h"

namespace birkhoff::infer {
namespace {

constexpr size_t kPromptPiece = Engine::kPassTokens;  // tokens of a prompt between two looks at cancel
constexpr size_t kMostDrafts = 16;

// All that the model has read.
std::vector<int32_t> prompt_of(const GenerationOptions& o, std::span<const int32_t> fresh) {
  std::vector<int32_t> all(o.read_before.begin(), o.read_before.end());
  all.insert(all.end(), fresh.begin(), fresh.end());
  return all;
}

}  // namespace

Generation::Generation(const TextModel* text, std::span<const int32_t> prompt, const GenerationOptions& o,
                       OnToken on_token)
    : text_(text),
      prompt_(prompt),
      o_(o),
      on_token_(std::move(on_token)),
      processor_(o.logits, prompt_of(o, prompt), text ? text->padding() : std::span<const int32_t>{}),
      stops_(text ? o.stop : std::vector<std::string>{}, o.stop_in_text) {
  if (text) writer_.emplace(*text, o.follows_prompt ? prompt : std::span<const int32_t>{}, !o.special);
  if (o.draft > 0 && o.draft_by == DraftBy::ngram) {
    lookup_.emplace();
    lookup_->append(prompt_of(o, prompt));
  }
  done_ = prompt.empty() && o.max_tokens == 0;
}

size_t Generation::drafts(size_t most) const {
  if (done_ || reads_prompt() || input_.empty()) return 0;
  const auto left = static_cast<size_t>(o_.max_tokens - out_.tokens);  // with the one that follows the draft
  return std::min({most, left - 1, static_cast<size_t>(o_.draft)});
}

Generation::Input Generation::next(size_t most) {
  if (done_) return {};
  if (reads_prompt()) {
    const auto piece = prompt_.subspan(prompt_at_, std::min(most, prompt_.size() - prompt_at_));
    prompt_at_ += piece.size();
    return {piece, TokenRole::prompt, reads_prompt() ? 0 : 1};
  }
  draft_.ids.resize(std::min(draft_.ids.size(), most - 1));
  input_.resize(1);
  input_.insert(input_.end(), draft_.ids.begin(), draft_.ids.end());
  return {input_, TokenRole::generated, static_cast<int64_t>(input_.size())};
}

size_t Generation::take(const std::function<std::span<const float>(size_t)>& row) {
  if (done_ || reads_prompt()) return 0;
  if (out_.tokens == o_.max_tokens) {
    done_ = true;
    return 0;
  }
  size_t i = 0;
  const std::vector<int32_t> tokens =
      verify(draft_, row, processor_, o_.sampling, o_.first_draw + static_cast<uint64_t>(out_.tokens), buffers_,
             [&](int32_t id) { return emit(id, row(i++)); });
  out_.drafted += static_cast<int64_t>(draft_.ids.size());
  out_.accepted += static_cast<int64_t>(tokens.size()) - 1;
  if (lookup_) lookup_->append(tokens);
  input_.assign(1, tokens.back());
  const size_t refused = draft_.ids.size() - (tokens.size() - 1);
  draft_.ids.clear();
  return refused;
}

// Whether the text goes on after the token.
bool Generation::emit(int32_t id, std::span<const float> logits) {
  GeneratedToken t;
  t.index = out_.tokens++;
  t.id = id;
  t.ends = text_ && (text_->ends(id) || id == o_.turn_end);
  if (o_.logprobs || o_.top_logprobs > 0) add_logprobs(logits, t);
  if (writer_ && !t.ends) t.text = part_ = stops_.push(writer_->push(id));
  const bool go_on = on_token_(t);
  if (t.ends && !o_.through_ends)
    out_.finish = Finish::end;
  else if (stops_.stopped())
    out_.finish = Finish::stop;
  else if (!go_on)
    out_.finish = Finish::cancelled;
  done_ = out_.finish != Finish::length || out_.tokens == o_.max_tokens;
  return !done_;
}

void Generation::add_logprobs(std::span<const float> logits, GeneratedToken& t) {
  const double norm = ops::log_sum_exp(logits);
  const auto of = [&](int32_t id) { return static_cast<double>(logits[static_cast<size_t>(id)]) - norm; };
  t.logprob = of(t.id);
  const size_t n = std::min(static_cast<size_t>(o_.top_logprobs), logits.size());
  if (n == 0) return;
  largest(logits, n, ranking_);
  for (size_t i = 0; i < n; ++i) t.top.emplace_back(ranking_[i], of(ranking_[i]));
}

void Generation::cancel() {
  if (done_) return;
  done_ = true;
  out_.finish = Finish::cancelled;
}

// The end of the text may hold a stop string too.
Generated Generation::finish() {
  if (!writer_ || stops_.stopped() || reads_prompt()) return out_;
  out_.rest = stops_.push(writer_->finish());
  out_.rest += stops_.finish();
  if (stops_.stopped()) out_.finish = Finish::stop;
  return out_;
}

const char* finish_name(Finish f) {
  constexpr const char* kNames[] = {"stop", "length", "end", "cancelled"};
  return kNames[static_cast<size_t>(f)];
}

Feed feed_of(Session& session) {
  return [&session](std::span<const int32_t> ids, TokenRole role) { return session.feed(ids, role); };
}

namespace {

// Drives g until it is done: read() has it read its next input.
template <class Read>
Generated drive(Generation& g, const std::atomic<bool>& cancel, Read&& read) {
  while (!g.done()) {
    if (cancel)
      g.cancel();
    else
      read();
  }
  return g.finish();
}

}  // namespace

void draft(const Engine& engine, std::span<const Drafting> texts) {
  std::vector<MtpDraft> by_modules;
  std::vector<Generation*> of;
  for (const Drafting& t : texts) {
    const size_t most = t.session->can_rewind() ? t.text->drafts(t.most) : 0;
    if (most == 0) continue;
    if (t.text->draft_by() == DraftBy::ngram) {
      t.text->set_draft(t.text->look_up(most));
    } else {
      by_modules.push_back({t.session, t.text->newest(), most, {}});
      of.push_back(t.text);
    }
  }
  draft_by_mtp(engine, by_modules);
  for (size_t i = 0; i < of.size(); ++i) of[i]->set_draft(std::move(by_modules[i].ids));
}

Generated generate(const Feed& feed, const TextModel* text, std::span<const int32_t> prompt,
                   const GenerationOptions& options, const std::atomic<bool>& cancel,
                   const Generation::OnToken& on_token) {
  Generation g(text, prompt, options, on_token);
  return drive(g, cancel, [&] {
    const Generation::Input in = g.next(kPromptPiece);
    const std::span<const float> logits = feed(in.ids, in.role);
    g.take([&](size_t) { return logits; });
  });
}

Generated generate(Session& session, const TextModel* text, std::span<const int32_t> prompt,
                   const GenerationOptions& options, const std::atomic<bool>& cancel,
                   const Generation::OnToken& on_token) {
  require_drafter(session.engine(), options);
  Generation g(text, prompt, options, on_token);
  g.skip(static_cast<size_t>(session.recall(prompt)));
  std::vector<std::vector<float>> rows;
  const auto room = [&] {  // a token that does not fit is an Error of the pass
    const int64_t left = session.capacity() - session.length();
    return static_cast<size_t>(std::clamp<int64_t>(left, 1, static_cast<int64_t>(kPromptPiece)));
  };
  return drive(g, cancel, [&] {
    const Drafting drafting[] = {{&g, &session, room() - 1}};
    draft(session.engine(), drafting);
    const Generation::Input in = g.next(room());
    rows.clear();
    const BatchPiece pieces[] = {{&session, in.ids, in.role, in.rows}};
    run_batch(session.engine(), pieces, [&](size_t, int64_t token, std::span<const float> logits) {
      require_finite(logits, session.length() - static_cast<int64_t>(in.ids.size()) + token);
      rows.emplace_back(logits.begin(), logits.end());
    });
    const size_t forget = g.take([&](size_t i) { return std::span<const float>(rows[i]); });
    session.rewind(session.length() - static_cast<int64_t>(forget));
  });
}

double log_probability(std::span<const float> logits, int32_t id) {
  return static_cast<double>(logits[static_cast<size_t>(id)]) - ops::log_sum_exp(logits);
}

void require_drafter(const Engine& engine, const GenerationOptions& o) {
  if (o.draft > 0 && o.draft_by == DraftBy::mtp) engine.require_predictors();
}

void validate(const GenerationOptions& o) {
  validate(o.sampling);
  validate(o.logits);
  const auto require = [](bool ok, const char* name, const char* range, const std::string& got) {
    if (!ok) throw Error("generation", std::string(name) + ": " + range + ", got " + got, "", ExitCode::usage);
  };
  require(o.max_tokens >= 0, "count", "must not be negative", std::to_string(o.max_tokens));
  require(o.draft >= 0 && o.draft <= static_cast<int64_t>(kMostDrafts), "draft", "must be from 0 to 16",
          std::to_string(o.draft));
  require(o.top_logprobs >= 0, "top-logprobs", "must not be negative", std::to_string(o.top_logprobs));
}

}  // namespace birkhoff::infer
