// What is done to a row of logits before a token is drawn from it: masks, biases, penalties.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace birkhoff::infer {

// Marks what may be written next: bit id % 32 of word id / 32 of allowed, which comes cleared. generated: the ids of
// the text so far, without its prompt. An end of text is allowed or not like any other id. What it throws ends the
// text.
using TokenMask = std::function<void(std::span<const int32_t> generated, std::span<uint32_t> allowed)>;

struct LogitsOptions {
  // Of ids in prompt and text, once however often: logits above 0 are divided by it, others multiplied (Keskar et al.
  // 2019, as transformers does).
  double repetition_penalty = 1;
  // Of ids in the text alone: logit - presence [count > 0] - frequency count (OpenAI). Below 0 they are more probable.
  double presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int32_t, double>> bias;  // added to the logit of an id; -100 bans it
  TokenMask mask;                                // null: everything may be written
};

inline constexpr double kBan = -100;  // of LogitsOptions::bias, the lowest and as such no number to add

// Throws Error naming the option and its range; also ids of biases from `vocabulary` on.
void validate(const LogitsOptions& options);
void require_ids(const LogitsOptions& options, size_t vocabulary);

// The state of one text. A row goes through the mask, then biases, the repetition penalty, and presence and frequency;
// what is drawn from the result is told to accept.
class LogitsProcessor {
 public:
  // prompt: what the model has read. banned: ids that are never written. options and banned outlive the processor.
  LogitsProcessor(const LogitsOptions& options, std::span<const int32_t> prompt, std::span<const int32_t> banned = {});

  // Row [V] to draw the next token from: the model's own where nothing is to be done, else in buffer (overwritten).
  // Throws Error: the mask and the bans leave no id, a biased id is none of the vocabulary.
  std::span<const float> process(std::span<const float> logits, std::vector<float>& buffer);
  void accept(int32_t id);

 private:
  void apply_mask(std::span<float> logits);
  void apply_penalties(std::span<float> logits) const;
  void require_choice(std::span<const float> logits) const;

  const LogitsOptions& options_;
  std::span<const int32_t> banned_;
  std::unordered_map<int32_t, int64_t> counts_;  // in the text, of the ids that have a penalty
  std::vector<int32_t> generated_;               // for the mask
  std::vector<uint32_t> allowed_;
};

}  // namespace birkhoff::infer
