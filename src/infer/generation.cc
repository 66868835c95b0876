#include "infer/generation.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "infer/stop_strings.h"

namespace birkhoff::infer {
namespace {

constexpr size_t kPromptPiece = 256;  // tokens of a prompt between two looks at cancel

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
}

// All that the model has read.
std::vector<int32_t> prompt_of(const GenerationOptions& o, std::span<const int32_t> fresh) {
  std::vector<int32_t> all(o.read_before.begin(), o.read_before.end());
  all.insert(all.end(), fresh.begin(), fresh.end());
  return all;
}

class Generation {
 public:
  Generation(const TextModel* text, std::span<const int32_t> prompt, const GenerationOptions& o)
      : text_(text),
        o_(o),
        processor_(o.logits, prompt_of(o, prompt), text ? text->padding() : std::span<const int32_t>{}),
        stops_(text ? o.stop : std::vector<std::string>{}, o.stop_in_text) {
    if (text) writer_.emplace(*text, o.follows_prompt ? prompt : std::span<const int32_t>{}, !o.special);
  }

  GeneratedToken next(std::span<const float> logits, int64_t index) {
    GeneratedToken t;
    t.index = index;
    t.id = sample(processor_.process(logits, choices_), o_.sampling, o_.first_draw + static_cast<uint64_t>(index),
                  buffer_);
    processor_.accept(t.id);
    t.ends = text_ && (text_->ends(t.id) || t.id == o_.turn_end);
    if (o_.logprobs || o_.top_logprobs > 0) add_logprobs(logits, t);
    if (!writer_ || t.ends) return t;
    t.text = part_ = stops_.push(writer_->push(t.id));
    return t;
  }
  bool stopped() const { return stops_.stopped(); }
  // The end of the text, which may hold a stop string too.
  std::string finish() {
    if (!writer_ || stopped()) return "";
    std::string rest = stops_.push(writer_->finish());
    return rest + stops_.finish();
  }

 private:
  void add_logprobs(std::span<const float> logits, GeneratedToken& t) {
    const double norm = log_sum_exp(logits);
    const auto of = [&](int32_t id) { return static_cast<double>(logits[static_cast<size_t>(id)]) - norm; };
    t.logprob = of(t.id);
    const size_t n = std::min(static_cast<size_t>(o_.top_logprobs), logits.size());
    if (n == 0) return;
    largest(logits, n, buffer_);
    for (size_t i = 0; i < n; ++i) t.top.emplace_back(buffer_[i], of(buffer_[i]));
  }

  const TextModel* text_;
  const GenerationOptions& o_;
  LogitsProcessor processor_;
  StopStrings stops_;
  std::optional<TextWriter> writer_;
  std::vector<int32_t> buffer_;
  std::vector<float> choices_;
  std::string part_;  // of the text: what t.text shows
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
  validate(o.logits);
  const auto require = [](bool ok, const char* name, const char* range, const std::string& got) {
    if (!ok) throw Error("generation", std::string(name) + ": " + range + ", got " + got, "", ExitCode::usage);
  };
  require(o.max_tokens >= 0, "count", "must not be negative", std::to_string(o.max_tokens));
  require(o.top_logprobs >= 0, "top-logprobs", "must not be negative", std::to_string(o.top_logprobs));
}

}  // namespace birkhoff::infer
