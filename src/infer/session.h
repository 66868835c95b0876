// Texts that a model reads and writes: a session is a position and its caches, and passes run pieces of many of them.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace birkhoff::infer {

// What tokens are to a session: given to it, or its own.
enum class TokenRole : uint8_t { prompt, generated };
// How latent attention of the engine's model reads them.
layers::MlaForm mla_form(const Engine& engine, TokenRole role);

// One text: its tokens and what the model keeps of them. Its bits are its own: they depend neither on the pieces it
// came in, nor on the sessions that share its passes, nor on threads, nor on what was read and taken back before. A
// token's depend on its role where latent attention goes by it (model::LatentAttention).
class Session {
 public:
  // Throws Error: a capacity that the engine does not allow; no memory for caches.
  Session(const Engine& engine, int64_t capacity);
  // Appends the tokens and returns the logits [V] that predict the next one, valid until the next call. A first prompt
  // begins with what the engine's prefix cache has of it. Throws Error, and the session is what it was (one that cannot
  // go back has read the pieces of Engine::kPassTokens before the one that failed): ids outside the vocabulary, no
  // room.
  std::span<const float> feed(std::span<const int32_t> ids, TokenRole role = TokenRole::prompt);
  // Forgets all but the first `tokens` of length(); what is fed next follows them with the bits of a session that read
  // no others. False, and nothing happens, where the model cannot go back to there (V4's windows).
  bool rewind(int64_t tokens);
  bool can_rewind() const { return !cache_.pool().has_slots(); }  // to any token
  bool can_predict() const { return cache_.pool().predictors() > 0; }
  // Another session that has read the same; what either reads from now on is its own.
  Session fork() const { return *this; }
  // Of an empty session: takes over what the engine's prefix cache has of the beginning of a prompt, leaving at least
  // its last token to be read; their number.
  int64_t recall(std::span<const int32_t> prompt);
  // Prompts are kept for, and found by, sessions of the same number alone.
  void set_scope(uint64_t scope) { scope_ = scope; }

  // Everything in one file, and back; the engine must have the same model, formats and cache type. Throws Error naming
  // what differs, or that the file is damaged.
  void save(const std::string& path) const;
  static Session restore(const Engine& engine, const std::string& path);

  int64_t length() const { return cache_.length(); }
  int64_t capacity() const { return cache_.capacity(); }
  std::span<const int32_t> ids() const { return ids_; }  // that it holds
  const Engine& engine() const { return *engine_; }
  const model::KvCache& cache() const { return cache_; }

 private:
  friend class BatchPass;
  friend class MtpPass;
  Session(const Session&) = default;
  void remember();  // the whole pages of prompt, for other sessions

 public:
  Session(Session&&) = default;
  Session& operator=(Session&&) = default;

 private:
  const Engine* engine_;
  model::KvCache cache_;
  uint64_t scope_ = 0;
  uint64_t weights_version_;  // when it was empty the last time
  std::vector<int32_t> ids_;
  int64_t prompt_tokens_ = 0;  // the first ones, before the first generated one
  int64_t predicted_ = 0;      // of the first ones prediction modules have their rows
  int32_t ahead_ = -1;         // where that is one more than length(): the token that comes next
  std::vector<float> logits_;
};

// A piece of one session in a pass.
struct BatchPiece {
  Session* session = nullptr;
  std::span<const int32_t> ids;
  TokenRole role = TokenRole::prompt;
  int64_t logits = 1;  // of its last tokens so many
};

// Runs the pieces, of different sessions and Engine::kPassTokens tokens at most, in one pass: every matrix is read once
// for all. row(piece, token of the piece, logits [V]) sees each that is asked for, in order. Throws Error, and the
// sessions are what they were: ids, capacity, no memory for caches.
using BatchRow = std::function<void(size_t piece, int64_t token, std::span<const float> logits)>;
void run_batch(const Engine& engine, std::span<const BatchPiece> pieces, const BatchRow& row);

}  // namespace birkhoff::infer
