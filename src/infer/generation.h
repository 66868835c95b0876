// The one loop of decoding: ids in, tokens out. What generates differs in where logits come from and in what it does
// with a token; sampling, ends, stop strings, log-probabilities and cancelling are here.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/names.h"
#include "infer/logits_processor.h"
#include "infer/mtp_draft.h"
#include "infer/prompt_lookup.h"
#include "infer/sampler.h"
#include "infer/session.h"
#include "infer/speculation.h"
#include "infer/stop_strings.h"
#include "infer/text_model.h"

namespace birkhoff::infer {

// Who guesses what follows: what followed the same ids before, or the model's prediction modules (mtp_draft.h).
enum class DraftBy : uint8_t { ngram, mtp };

}  // namespace birkhoff::infer

template <>
struct birkhoff::NamesOf<birkhoff::infer::DraftBy> {
  static constexpr Named<infer::DraftBy> table[] = {{"ngram", infer::DraftBy::ngram}, {"mtp", infer::DraftBy::mtp}};
};

namespace birkhoff::infer {

struct GenerationOptions {
  SamplerOptions sampling;
  LogitsOptions logits;
  uint64_t first_draw = 0;               // of the sampler's stream
  int64_t max_tokens = 0;                // with the one that ends the text
  std::vector<std::string> stop;         // a text that ends it once it was written; "" never does
  bool stop_in_text = true;              // else it is not shown, nor what may still become one until it does not
  std::optional<int32_t> turn_end;       // ends the text beside the ids that end every text
  bool through_ends = false;             // such ids are tokens like others, without a text
  bool special = false;                  // special tokens have a text
  bool follows_prompt = true;            // the text goes on where the prompt's ended (a space between words)
  std::span<const int32_t> read_before;  // by the model before the prompt, which the repetition penalty counts too
  int64_t draft = 0;                     // ids that are guessed and read at once
  DraftBy draft_by = DraftBy::ngram;
  bool logprobs = false;
  int64_t top_logprobs = 0;  // of so many most probable ids, with every token
};

struct GeneratedToken {
  int64_t index = 0;  // 0, 1, ...
  int32_t id = 0;
  bool ends = false;      // a text; its own text is ""
  std::string_view text;  // what became complete with it, up to a stop string's end
  // Natural, of the softmax of the model's own logits: no temperature, no limits of sampling. 0 unless asked for.
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;  // ids and log-probabilities, the most probable first
};

enum class Finish : uint8_t { stop, length, end, cancelled };
const char* finish_name(Finish f);  // "stop", "length", "end", "cancelled"

struct Generated {
  Finish finish = Finish::length;
  int64_t tokens = 0;  // with the one that ended the text
  std::string rest;    // of the text: what no further token can complete
  int64_t drafted = 0, accepted = 0;
};

// One text in the making: says what the model reads next, and makes tokens of the logits that come back. Whoever has a
// model drives it: generate() one of them, a Scheduler many together.
class Generation {
 public:
  // Sees each token as it comes and returns whether to go on.
  using OnToken = std::function<bool(const GeneratedToken&)>;
  // text: nullptr for ids alone, which have no ends of their own and no stops. The prompt may be empty when max_tokens
  // is 0 only. All outlive it.
  Generation(const TextModel* text, std::span<const int32_t> prompt, const GenerationOptions& options,
             OnToken on_token);

  // What the model reads next, valid until take(), and of how many of its last tokens logits are wanted (0: only a
  // piece of the prompt).
  struct Input {
    std::span<const int32_t> ids;
    TokenRole role = TokenRole::prompt;
    int64_t rows = 0;
  };
  // At most `most` tokens, those that were drafted among them; empty when there is nothing to read.
  Input next(size_t most);
  // The first tokens of the prompt were read before.
  void skip(size_t tokens) { prompt_at_ += tokens; }
  // The input was read; row(i): logits [V] of the i-th of its rows, valid until the next call. Returns how many of the
  // last ids that were read the text went another way from: the model must forget them.
  size_t take(const std::function<std::span<const float>(size_t)>& row);
  void cancel();
  bool done() const { return done_; }

  // How many ids of a draft the next input has use for, `most` at most.
  size_t drafts(size_t most) const;
  DraftBy draft_by() const { return o_.draft_by; }
  int32_t newest() const { return input_.front(); }  // token, which is read next; there are drafts() then
  std::vector<int32_t> look_up(size_t most) const { return lookup_->draft(most); }
  void set_draft(std::vector<int32_t> ids) { draft_.ids = std::move(ids); }  // until take()

  bool reads_prompt() const { return prompt_at_ < prompt_.size(); }
  Generated finish();  // once, when it is done

 private:
  bool emit(int32_t id, std::span<const float> logits);
  void add_logprobs(std::span<const float> logits, GeneratedToken& t);

  const TextModel* text_;
  std::span<const int32_t> prompt_;
  const GenerationOptions& o_;
  OnToken on_token_;
  LogitsProcessor processor_;
  StopStrings stops_;
  std::optional<TextWriter> writer_;
  std::optional<PromptLookup> lookup_;
  size_t prompt_at_ = 0;
  std::vector<int32_t> input_;  // the last token, then the draft
  Draft draft_;
  bool done_ = false;
  Generated out_;
  SpeculationBuffers buffers_;
  std::vector<int32_t> ranking_;
  std::string part_;  // of the text: what a token shows
};

// A text that is written, and how many ids are to be drafted at most.
struct Drafting {
  Generation* text = nullptr;
  Session* session = nullptr;
  size_t most = 0;
};
// Lets each text's drafter guess what follows, in passes that they share, where the session can go back. Throws Error.
void draft(const Engine& engine, std::span<const Drafting> texts);

// Appends ids to what the model has read; logits [V] that predict the next one, valid until the next call.
using Feed = std::function<std::span<const float>(std::span<const int32_t>, TokenRole)>;
Feed feed_of(Session& session);  // which outlives it

// Feeds the prompt, in pieces, and then every token but the last; cancel is looked at before each. Throws what feed
// throws.
Generated generate(const Feed& feed, const TextModel* text, std::span<const int32_t> prompt,
                   const GenerationOptions& options, const std::atomic<bool>& cancel,
                   const Generation::OnToken& on_token);
// The same of a session, which may read drafts too (GenerationOptions::draft): the tokens of plain decoding at
// temperature 0, and of its distribution otherwise.
Generated generate(Session& session, const TextModel* text, std::span<const int32_t> prompt,
                   const GenerationOptions& options, const std::atomic<bool>& cancel,
                   const Generation::OnToken& on_token);

// Natural, of the softmax of logits.
double log_probability(std::span<const float> logits, int32_t id);

// Throws Error when the engine has not the drafter that is asked for.
void require_drafter(const Engine& engine, const GenerationOptions& options);
// Throws Error naming the option and its range (exit code 2).
void validate(const GenerationOptions& options);

}  // namespace birkhoff::infer
