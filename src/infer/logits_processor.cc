#include "infer/logits_processor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "core/error.h"

namespace birkhoff::infer {

void validate(const LogitsOptions& o) {
  const auto require = [](bool ok, const std::string& name, const char* range, double v) {
    if (!ok) throw Error("sampling", name + ": " + range + ", got " + std::to_string(v), "", ExitCode::usage);
  };
  require(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), "repetition-penalty", "must be above 0",
          o.repetition_penalty);
  require(std::fabs(o.presence_penalty) <= 2, "presence-penalty", "must be in [-2, 2]", o.presence_penalty);
  require(std::fabs(o.frequency_penalty) <= 2, "frequency-penalty", "must be in [-2, 2]", o.frequency_penalty);
  for (const auto& [id, bias] : o.bias)
    require(std::fabs(bias) <= 100, "logit-bias of id " + std::to_string(id), "must be in [-100, 100]", bias);
}

void require_ids(const LogitsOptions& o, size_t vocabulary) {
  for (const auto& [id, bias] : o.bias)
    if (id < 0 || static_cast<size_t>(id) >= vocabulary)
      throw Error("sampling",
                  "logit-bias: id " + std::to_string(id) + " is none of the vocabulary's 0 to " +
                      std::to_string(vocabulary - 1),
                  "birkhoff tokenize tells the ids of a text", ExitCode::usage);
}

LogitsProcessor::LogitsProcessor(const LogitsOptions& options, std::span<const int32_t> prompt,
                                 std::span<const int32_t> banned)
    : options_(options), banned_(banned) {
  if (options.repetition_penalty != 1)
    for (const int32_t id : prompt) counts_.try_emplace(id, 0);
}

void LogitsProcessor::accept(int32_t id) {
  const LogitsOptions& o = options_;
  if (o.repetition_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0) ++counts_[id];
  if (o.mask) generated_.push_back(id);
}

std::span<const float> LogitsProcessor::process(std::span<const float> logits, std::vector<float>& buffer) {
  const LogitsOptions& o = options_;
  if (!o.mask && o.bias.empty() && counts_.empty() && banned_.empty()) return logits;
  require_ids(o, logits.size());
  buffer.assign(logits.begin(), logits.end());
  apply_mask(buffer);
  for (const auto& [id, bias] : o.bias) {
    float& x = buffer[static_cast<size_t>(id)];
    x = bias == kBan ? -INFINITY : static_cast<float>(x + bias);
  }
  apply_penalties(buffer);
  require_choice(buffer);
  return buffer;
}

void LogitsProcessor::apply_mask(std::span<float> logits) {
  for (const int32_t id : banned_) logits[static_cast<size_t>(id)] = -INFINITY;
  if (!options_.mask) return;
  allowed_.assign((logits.size() + 31) / 32, 0);
  options_.mask(generated_, allowed_);
  for (size_t word = 0; word < allowed_.size(); ++word) {
    if (allowed_[word] == ~0u) continue;
    for (size_t id = 32 * word, end = std::min(id + 32, logits.size()); id < end; ++id)
      if (!(allowed_[word] >> id % 32 & 1)) logits[id] = -INFINITY;
  }
}

void LogitsProcessor::apply_penalties(std::span<float> logits) const {
  const auto repetition = static_cast<float>(options_.repetition_penalty);
  for (const auto& [id, count] : counts_) {
    float& x = logits[static_cast<size_t>(id)];
    x = x > 0 ? x / repetition : x * repetition;
    if (count > 0)
      x = static_cast<float>(x - options_.presence_penalty - options_.frequency_penalty * static_cast<double>(count));
  }
}

void LogitsProcessor::require_choice(std::span<const float> logits) const {
  if (std::any_of(logits.begin(), logits.end(), [](float x) { return x > -INFINITY; })) return;
  std::string why = "no id of " + std::to_string(logits.size()) + " may be written";
  if (options_.mask) {
    size_t marked = 0;
    for (const uint32_t word : allowed_) marked += static_cast<size_t>(std::popcount(word));
    why += " at token " + std::to_string(generated_.size()) + ": the mask allows " + std::to_string(marked);
  }
  throw Error("sampling", why, "allow an id that has a token and is not banned by a bias of -100");
}

}  // namespace birkhoff::infer
