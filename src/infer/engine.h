// A model to run, with the memory that all its sessions share.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/model_files.h"
#include "checkpoint/panel_cache.h"
#include "core/arena.h"
#include "core/exec.h"
#include "infer/streaming.h"
#include "model/pass.h"
#include "model/routing_probe.h"

namespace birkhoff::infer {

class PrefixCache;
struct MeasuredModel;

// Of what sessions keep of the tokens they read.
struct CacheOptions {
  std::optional<ops::CacheType> type;  // the compute type unless given; V4 keeps its windows and entries in that
  int64_t bytes = 0;                   // of all sessions; 0: a quarter of the machine's memory
  int64_t prefix_bytes = 0;            // of these, kept of prompts that were read, for those that begin alike; 0: none
  bool predictors = false;  // and of what the model's prediction modules keep, which draft then (mtp_draft.h)
};

struct EngineOptions {
  std::string compute;  // "bf16" or "fp32"; "": what the directory's training used, else bf16
  // Longest sequence; 0: enough_positions, or the model's max_position_embeddings where those are fewer.
  int64_t max_positions = 0;
  int64_t enough_positions = 4096;
  int threads = 1;
  model::WeightFormats weights;  // of products; activations are rounded to 8 bits where weights are quantised
  // Directory that keeps quantised weights from one opening to the next (checkpoint/panel_cache.h). "": none.
  std::string panels;
  // Weights may be more than memory: they stay in files (quantised ones in `panels`), and what a token reads of them is
  // asked for as soon as it is known. Working memory and caches must fit. note() says what speed to expect.
  bool stream = false;
  std::function<void(int64_t, int64_t)> progress;  // bytes quantised so far and in all, while the model is opened
  std::vector<std::string> set;                    // "key=value" over config.json: dtype, or a setting of the model
  std::string adapter;  // LoRA adapter to run beside the weights (checkpoint/adapter.h). "": the one of a checkpoint
                        // that was trained with adapters
  model::RoutingProbe probe;  // experts that are disabled, for analysis
  CacheOptions caches;
  // Of models with latent attention: what sessions keep, and which bits they have.
  model::LatentAttention latent_attention = model::LatentAttention::by_role;
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
  // Bits are those of an engine of the directory that the weights are saved to, opened with the model's
  // latent_attention: of a model in training sessions keep keys and values, and have the bits of its forward.
  Engine(const model::Model& model, const Exec& exec, std::string directory = "", CacheOptions caches = {});
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  const model::Model& model() const { return *model_; }
  const Exec& exec() const { return *exec_; }
  int64_t max_positions() const { return max_positions_; }
  // Where the text of the model is: a directory, a GGUF file, or "" of a lent model without.
  const std::string& directory() const { return directory_; }
  // Working memory of a pass over up to kPassTokens tokens of sessions, of which one runs at a time.
  static constexpr int64_t kPassTokens = 512;
  model::Pass& session_pass() const;
  // Logits [V] of these rows of the session pass, one after another, valid during the call.
  void session_logits(std::span<const int64_t> rows,
                      const std::function<void(size_t, std::span<const float>)>& row) const;
  model::CachePool& caches() const;
  // Throws Error when drafts cannot be had of prediction modules. Those of a model that cannot go back (V4's windows)
  // are there and draft nothing.
  void require_predictors() const;
  // Or nullptr. What was read of prompts with other weights than the model's of now is forgotten.
  PrefixCache* prefixes() const;
  const std::optional<StreamedSpeed>& streamed() const { return streamed_; }  // with EngineOptions::stream
  // Of a model of a directory: weights, working memory of sessions, and what their caches have now.
  int64_t planned_bytes() const;
  const std::string& note() const { return note_; }  // what had to be worked around while opening, or ""

  // Logits [T, V] fp32 of one whole sequence, row by row to `row(t, logits)`; memory does not grow with T * V.
  void full_logits(std::span<const int32_t> ids, const std::function<void(int64_t, std::span<const float>)>& row) const;
  // Hidden states [T, D] before the output matrix, of one whole sequence.
  std::vector<float> full_hidden(std::span<const int32_t> ids) const;

 private:
  void read_whole(std::span<const int32_t> ids,
                  const std::function<void(const Exec&, model::Pass&, const model::Tape&)>& use) const;
  void add_note(const std::string& text);
  bool map_panels(const MeasuredModel& measured, const EngineOptions& options);
  void stream(size_t copies);
  std::string note_, directory_;  // in this order: finding the directory writes the note
  int64_t max_positions_ = 0, planned_weights_ = 0;
  std::unique_ptr<Exec> own_exec_;  // what is not lent
  std::unique_ptr<checkpoint::ModelFiles> files_;
  std::unique_ptr<Arena> memory_;
  std::unique_ptr<checkpoint::PanelCache> panels_;
  std::unique_ptr<model::Model> own_model_;
  const Exec* exec_ = nullptr;
  const model::Model* model_ = nullptr;
  CacheOptions cache_options_;
  std::optional<StreamedSpeed> streamed_;
  // Made when the first session needs them. What runs leaves nothing in the pass.
  mutable std::unique_ptr<model::CachePool> caches_;
  mutable std::unique_ptr<PrefixCache> prefixes_;
  mutable uint64_t prefixes_version_ = 0;  // of the weights
  mutable std::unique_ptr<model::Pass> pass_;
};

// A NaN among the logits of a token would be sampled as if it were one: an Error naming its position.
void require_finite(std::span<const float> logits, int64_t position);

// Ids outside [0, vocab_size) are an Error naming the position and both values.
void check_ids(const model::ModelConfig& c, std::span<const int32_t> ids);

}  // namespace birkhoff::infer
