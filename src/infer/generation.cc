#include "infer/generation.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace birkhoff::infer {
namespace {

constexpr size_t kPromptPiece = 256;  // tokens of a prompt between two looks at cancel

// Finds the first end of a stop string in a text that grows.
class StopStrings {
 public:
  explicit StopStrings(const std::vector<std::string>& stops) {
    for (const std::string& s : stops)
      if (!s.empty()) stops_.push_back(s), longest_ = std::max(longest_, s.size());
  }
  // Bytes of the part up to the end of the first stop string; npos: there is none.
  size_t end_in(std::string_view part) {
    if (stops_.empty()) return std::string::npos;
    const size_t before = tail_.size();
    tail_ += part;
    size_t end = std::string::npos;
    for (const std::string& s : stops_) {
      const size_t at = tail_.find(s, before >= s.size() ? before - s.size() + 1 : 0);
      if (at != std::string::npos) end = std::min(end, at + s.size());
    }
    if (tail_.size() >= longest_) tail_.erase(0, tail_.size() - longest_ + 1);
    return end == std::string::npos ? end : end - before;
  }

 private:
  std::vector<std::string> stops_;
  size_t longest_ = 0;
  std::string tail_;  // shorter than the longest, so that no end is found twice
};

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
}

class Generation {
 public:
  Generation(const TextModel* text, std::span<const int32_t> prompt, const GenerationOptions& o)
      : text_(text), o_(o), stops_(text ? o.stop : std::vector<std::string>{}) {
    if (text) writer_.emplace(*text, o.follows_prompt ? prompt : std::span<const int32_t>{}, !o.special);
    if (o.repetition_penalty != 1) seen_.insert(seen_.end(), prompt.begin(), prompt.end());
  }

  GeneratedToken next(std::span<const float> logits, int64_t index) {
    GeneratedToken t;
    t.index = index;
    t.id = sample(choices(logits), o_.sampling, o_.first_draw + static_cast<uint64_t>(index), buffer_);
    t.ends = text_ && (text_->ends(t.id) || t.id == o_.turn_end);
    if (o_.repetition_penalty != 1) seen_.push_back(t.id);
    if (o_.logprobs || o_.top_logprobs > 0) add_logprobs(logits, t);
    if (!writer_ || t.ends) return t;
    part_ = writer_->push(t.id);
    cut();
    t.text = part_;
    return t;
  }
  bool stopped() const { return stopped_; }
  // The end of the text, which may hold a stop string too.
  std::string finish() {
    if (!writer_ || stopped_) return "";
    part_ = writer_->finish();
    cut();
    return std::move(part_);
  }

 private:
  // What is drawn from: no id without a token, and ids that were there already are less probable.
  std::span<const float> choices(std::span<const float> logits) {
    const bool padding = text_ && !text_->padding().empty();
    if (!padding && seen_.empty()) return logits;
    choices_.assign(logits.begin(), logits.end());
    const auto penalty = static_cast<float>(o_.repetition_penalty);
    for (const int32_t id : seen_) {
      const float x = logits[static_cast<size_t>(id)];  // once, however often it was there
      choices_[static_cast<size_t>(id)] = x > 0 ? x / penalty : x * penalty;
    }
    if (padding)
      for (const int32_t id : text_->padding()) choices_[static_cast<size_t>(id)] = -INFINITY;
    return choices_;
  }
  void add_logprobs(std::span<const float> logits, GeneratedToken& t) {
    const double norm = log_sum_exp(logits);
    const auto of = [&](int32_t id) { return static_cast<double>(logits[static_cast<size_t>(id)]) - norm; };
    t.logprob = of(t.id);
    const size_t n = std::min(static_cast<size_t>(o_.top_logprobs), logits.size());
    if (n == 0) return;
    largest(logits, n, buffer_);
    for (size_t i = 0; i < n; ++i) t.top.emplace_back(buffer_[i], of(buffer_[i]));
  }
  void cut() {
    const size_t end = stops_.end_in(part_);
    stopped_ = end != std::string::npos;
    if (stopped_) part_.resize(end);
  }

  const TextModel* text_;
  const GenerationOptions& o_;
  StopStrings stops_;
  std::optional<TextWriter> writer_;
  std::vector<int32_t> seen_, buffer_;
  std::vector<float> choices_;
  std::string part_;
  bool stopped_ = false;
};

}  // namespace

const char* finish_name(Finish f) {
  constexpr const char* kNames[] = {"stop", "length", "end", "cancelled"};
  return kNames[static_cast<size_t>(f)];
}

Feed feed_of(Session& session) {
  return [&session](std::span<const int32_t> ids, TokenRole role) { return session.feed(ids, role); };
}

Generated generate(const Feed& feed, const TextModel* text, std::span<const int32_t> prompt,
                   const GenerationOptions& options, const std::atomic<bool>& cancel,
                   const std::function<bool(const GeneratedToken&)>& on_token) {
  Generated out;
  Generation generation(text, prompt, options);
  std::span<const float> logits;
  for (size_t at = 0; at < prompt.size(); at += kPromptPiece) {
    if (cancel) return {Finish::cancelled, 0, ""};
    logits = feed(prompt.subspan(at, std::min(kPromptPiece, prompt.size() - at)), TokenRole::prompt);
  }
  while (out.tokens < options.max_tokens) {
    if (cancel) {
      out.finish = Finish::cancelled;
      break;
    }
    const GeneratedToken token = generation.next(logits, out.tokens++);
    const bool go_on = on_token(token);
    if (token.ends && !options.through_ends)
      out.finish = Finish::end;
    else if (generation.stopped())
      out.finish = Finish::stop;
    else if (!go_on)
      out.finish = Finish::cancelled;
    if (out.finish != Finish::length || out.tokens == options.max_tokens) break;
    logits = feed({&token.id, 1}, TokenRole::generated);
  }
  out.rest = generation.finish();
  if (generation.stopped()) out.finish = Finish::stop;
  return out;
}

void validate(const GenerationOptions& o) {
  validate(o.sampling);
  const auto require = [](bool ok, const char* name, const char* range, const std::string& got) {
    if (!ok) throw Error("generation", std::string(name) + ": " + range + ", got " + got, "", ExitCode::usage);
  };
  require(o.max_tokens >= 0, "count", "must not be negative", std::to_string(o.max_tokens));
  require(o.top_logprobs >= 0, "top-logprobs", "must not be negative", std::to_string(o.top_logprobs));
  require(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), "repetition-penalty", "must be above 0",
          std::to_string(o.repetition_penalty));
}

}  // namespace birkhoff::infer
