// Running a trained model: an immutable engine, and sessions that hold a position and a cache.
#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/model_files.h"
#include "checkpoint/panel_cache.h"
#include "core/arena.h"
#include "core/exec.h"
#include "model/pass.h"
#include "model/routing_probe.h"

namespace birkhoff::infer {

struct EngineOptions {
  std::string compute;  // "bf16" or "fp32"; "": what the directory's training used, else bf16
  // Longest sequence; 0: enough_positions, or the model's max_position_embeddings where those are fewer.
  int64_t max_positions = 0;
  int64_t enough_positions = 4096;
  int threads = 1;
  model::WeightFormats weights;  // of products; activations are rounded to 8 bits where weights are quantised
  // Directory that keeps quantised weights from one opening to the next (checkpoint/panel_cache.h). "": none.
  std::string panels;
  std::function<void(int64_t, int64_t)> progress;  // bytes quantised so far and in all, while the model is opened
  std::vector<std::string> set;                    // "key=value" over config.json: dtype, or a setting of the model
  std::string adapter;  // LoRA adapter to run beside the weights (checkpoint/adapter.h). "": the one of a checkpoint
                        // that was trained with adapters
  model::RoutingProbe probe;  // experts that are disabled, for analysis
};

// What tokens are to a session: given to it, or its own.
enum class TokenRole : uint8_t { prompt, generated };

// Which form latent attention takes for them (layers/mla.h). A prompt is read in the expanded form, with the bits of
// training, and generated tokens meet the cache as it lies; a token's bits depend on its role and on what stands before
// it, not on the pieces it came in.
struct MlaForms {
  layers::MlaForm prompt = layers::MlaForm::expanded, generated = layers::MlaForm::absorbed;
  MlaForms() = default;
  MlaForms(layers::MlaForm both) : prompt(both), generated(both) {}
  auto operator<=>(const MlaForms&) const = default;
};

// A model to run: of a directory, or lent by somebody who has it in memory. Any number of sessions may share it, from
// one thread at a time: their working memory is the engine's.
class Engine {
 public:
  // Weights and tables of one model, as checkpoint::resolve_model finds it: a directory or a GGUF file. Matrices are
  // read where they lie in the mapped files, in whatever number format; the files must not change while the engine
  // lives. Throws Error.
  Engine(const std::string& directory, const EngineOptions& options);
  // A model in memory, be it in training: what runs uses the weights as they are then (after Model::refresh). Both
  // outlive the engine. directory: where the tokenizer and config.json of its text are; "": it reads and writes ids.
  // Bits are those of an engine of the directory that the weights are saved to.
  Engine(const model::Model& model, const Exec& exec, std::string directory = "");
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  const model::Model& model() const { return *model_; }
  const Exec& exec() const { return *exec_; }
  int64_t max_positions() const { return max_positions_; }
  // Where the text of the model is: a directory, a GGUF file, or "" of a lent model without.
  const std::string& directory() const { return directory_; }
  // Working memory of a forward in sessions, of which one runs at a time: planned once for every (capacity, forms), as
  // large as the largest needs, and shared by all.
  void plan_sessions(int64_t capacity, MlaForms forms) const;
  model::Pass& session_pass() const { return *sessions_.pass; }
  const std::string& note() const { return note_; }  // what had to be worked around while opening, or ""

  // Logits [T, V] fp32 of one whole sequence, row by row to `row(t, logits)`; memory does not grow with T * V.
  void full_logits(std::span<const int32_t> ids, const std::function<void(int64_t, std::span<const float>)>& row) const;

 private:
  void add_note(const std::string& text);
  std::string note_, directory_;  // in this order: finding the directory writes the note
  int64_t max_positions_ = 0;
  std::unique_ptr<Exec> own_exec_;  // what is not lent
  std::unique_ptr<checkpoint::ModelFiles> files_;
  std::unique_ptr<Arena> memory_;
  std::unique_ptr<checkpoint::PanelCache> panels_;
  std::unique_ptr<model::Model> own_model_;
  const Exec* exec_ = nullptr;
  const model::Model* model_ = nullptr;
  struct Sessions {
    std::set<std::pair<int64_t, MlaForms>> planned;
    model::Pass::Need need;
    std::unique_ptr<model::Pass> pass;
  };
  mutable Sessions sessions_;  // scratch: what runs leaves nothing there
};

// One conversation with the model: a cache and what predicts the next token. Feeding tokens one by one or in pieces
// gives the bits of the full forward; models with latent attention do so in its expanded form, and in the absorbed one,
// which costs less behind many tokens, to rounding.
class Session {
 public:
  Session(const Engine& engine, int64_t capacity, MlaForms forms = {});
  // Appends the tokens and returns the logits [V] that predict the next one. Throws Error when the capacity is
  // exceeded.
  std::span<const float> feed(std::span<const int32_t> ids, TokenRole role = TokenRole::prompt);
  // Forgets all but the first `tokens` of length(); what is fed next follows them with the bits of a session that read
  // no others. False, and nothing happens, where the model cannot go back to there (V4's windows).
  bool rewind(int64_t tokens) { return cache_.truncate(tokens); }
  int64_t length() const { return cache_.length; }
  int64_t capacity() const { return cache_.capacity; }

 private:
  const Engine& engine_;
  std::unique_ptr<Arena> memory_;
  model::KvCache cache_;
  MlaForms forms_;
  int64_t piece_;  // tokens that are fed at once
  model::SequenceTokens places_;
  std::vector<float> logits_;
};

// Ids outside [0, vocab_size) are an Error naming the position and both values.
void check_ids(const model::ModelConfig& c, std::span<const int32_t> ids);

}  // namespace birkhoff::infer
