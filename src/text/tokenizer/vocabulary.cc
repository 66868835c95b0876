#include "text/tokenizer/vocabulary.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"

namespace birkhoff::text {
namespace {
size_t hash(std::string_view s) { return XXH3_64bits(s.data(), s.size()); }
}  // namespace

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  entries_.reserve(tokens);
  bytes_.reserve(bytes);
  size_t slots = 16;
  while (slots < 2 * tokens) slots *= 2;
  rehash(slots);
}

void Vocabulary::rehash(size_t slots) {
  slots_.assign(slots, -1);
  for (size_t id = 0; id < entries_.size(); ++id) {
    if (entries_[id].begin == kNone) continue;
    size_t at = hash(token(static_cast<int32_t>(id))) & (slots - 1);
    while (slots_[at] >= 0) at = (at + 1) & (slots - 1);
    slots_[at] = static_cast<int32_t>(id);
  }
}

void Vocabulary::add(std::string_view token, int64_t id) {
  if (id < 0 || id > kMaxTokenId)
    throw Error("tokenizer", "token \"" + std::string(token.substr(0, 40)) + "\" has id " + std::to_string(id) +
                                 ", not within 0.." + std::to_string(kMaxTokenId));
  if (slots_.size() < 2 * (static_cast<size_t>(count_) + 1)) rehash(std::max<size_t>(16, slots_.size() * 2));
  size_t at = hash(token) & (slots_.size() - 1);
  while (slots_[at] >= 0 && this->token(slots_[at]) != token) at = (at + 1) & (slots_.size() - 1);
  if (slots_[at] == id) return;
  if (has(static_cast<int32_t>(id)))
    throw Error("tokenizer", "tokens \"" + std::string(this->token(static_cast<int32_t>(id)).substr(0, 40)) +
                                 "\" and \"" + std::string(token.substr(0, 40)) + "\" both have id " +
                                 std::to_string(id));
  if (entries_.size() <= static_cast<size_t>(id)) entries_.resize(static_cast<size_t>(id) + 1);
  if (slots_[at] >= 0) {
    std::swap(entries_[static_cast<size_t>(id)], entries_[static_cast<size_t>(slots_[at])]);
  } else {
    if (bytes_.size() + token.size() >= kNone) throw Error("tokenizer", "the tokens take 4 GiB");
    entries_[static_cast<size_t>(id)] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(token.size())};
    bytes_.append(token);
    ++count_;
  }
  slots_[at] = static_cast<int32_t>(id);
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  for (size_t at = hash(token) & (slots_.size() - 1); slots_[at] >= 0; at = (at + 1) & (slots_.size() - 1))
    if (this->token(slots_[at]) == token) return slots_[at];
  return -1;
}

}  // namespace birkhoff::text
