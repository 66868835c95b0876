// Passes of a model over data, window by window: consecutive and non-overlapping, as in training's validation.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "infer/text_model.h"
#include "model/pass.h"

namespace birkhoff::eval {

// The window that the model of a directory (checkpoint::resolve_model) was trained with here, else 256; ""
// is a model without one.
int64_t trained_seq_len(const std::string& directory);

// Batches of one window each. paths: files or folders; seq_len 0: as trained; validation_only: the last 5 % of each
// source. Throws Error.
std::vector<data::Batch> windows(const infer::Engine& engine, const infer::TextModel& text,
                                 const std::vector<std::string>& paths, int64_t seq_len, bool validation_only);

// Where the tokens of a batch stand; views of it.
layers::TokenContext context(const data::Batch& b);

// What is done with a batch after the forward pass. When memory is planned also called on a dry run (exec.dry()):
// reserve alike, read nothing.
using WindowUse = std::function<void(const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena& scratch)>;
// Called after every batch: how many are done, of how many.
using Advance = std::function<void(int64_t done, int64_t all)>;

// Runs a model in memory over every batch, in memory that the caller planned for the largest of them.
void over_batches(const Exec& exec, const model::Model& m, model::Pass& pass, const std::vector<data::Batch>& batches,
                  model::Tape::Keep keep, const WindowUse& use, const Advance& advance = {});
// The same of an engine, in memory that is taken once. All windows have the same length.
void over_windows(const infer::Engine& engine, const std::vector<data::Batch>& batches, model::Tape::Keep keep,
                  const WindowUse& use, const Advance& advance = {});

}  // namespace birkhoff::eval
