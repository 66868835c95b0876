#include "eval/likelihood.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "data/chat_corpus.h"
#include "data/corpus.h"
#include "infer/text_model.h"
#include "model/json_fields.h"
#include "model/transformer.h"

namespace birkhoff::eval {

int64_t trained_seq_len(const std::string& directory) {
  const nlohmann::json j = checkpoint::read_config_json(checkpoint::resolve_model_directory(directory));
  return j.contains("training") ? model::field_or<int64_t>(j["training"], "seq_len", 256) : 256;
}

namespace {

// Batches of one window each.
std::vector<data::Batch> windows(const infer::Engine& engine, const infer::TextModel& text, const std::vector<std::string>& paths, int64_t seq_len, bool validation_only) {
  if (seq_len == 0) seq_len = trained_seq_len(engine.directory());
  if (seq_len < 1 || seq_len > engine.max_positions())
    throw Error("eval", "--seq-len " + std::to_string(seq_len) + ", the model allows 1 to " + std::to_string(engine.max_positions()));
  if (data::are_conversations(paths)) {
    if (!text.tokenizer()) throw Error("eval", engine.directory() + ": conversations need a tokenizer", "put tokenizer.json beside the weights");
    const auto format = text::chat::ChatFormat::open(engine.directory());
    const data::ChatCorpus corpus = validation_only ? data::ChatCorpus(paths, {}, text.tokenizer(), format, seq_len, 0) : data::ChatCorpus({}, paths, text.tokenizer(), format, seq_len, 0);
    return corpus.validation_batches(1, 0);
  }
  const data::Tokenization tokenization{text.tokenizer(), "", 0, 0, engine.exec().threads()};
  const data::Tokenization* tokens = text.tokenizer() ? &tokenization : nullptr;
  // Validating "on" a path takes all of it.
  const data::Corpus corpus = validation_only ? data::Corpus(paths, {}, seq_len, 0, tokens) : data::Corpus({}, paths, seq_len, 0, tokens);
  return corpus.validation_batches(1, 0);
}

layers::TokenContext context(const data::Batch& b) { return {b.position, b.first_key, b.segment_start, b.sequence_start}; }

// Runs the model over a window, then what is to be done with it: a dry run of both first finds the memory, equal for all windows.
template <class F>
void over_windows(const infer::Engine& engine, const std::vector<data::Batch>& batches, model::Tape::Keep keep, F&& then) {
  if (batches.empty()) return;
  const model::Model& m = engine.model();
  const auto pass = [&](const Exec& exec, const data::Batch& b, Arena& tape_memory, Arena& scratch) {
    model::Tape tape = model::reserve_tape(tape_memory, m, static_cast<int64_t>(b.ids.size()), keep);
    model::forward(exec, m, b.ids, context(b), tape, scratch);
    then(exec, b, tape, scratch);
  };
  Arena tape_need = Arena::measuring(), scratch_need = Arena::measuring();
  pass(Exec::dry_run(1), batches[0], tape_need, scratch_need);
  Arena tape_memory(tape_need.peak()), scratch(scratch_need.peak());
  for (const data::Batch& b : batches) {
    tape_memory.reset();
    scratch.reset();
    pass(engine.exec(), b, tape_memory, scratch);
  }
}

}  // namespace

Likelihood window_likelihood(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len, bool validation_only) {
  Likelihood r;
  const infer::TextModel text(engine);
  over_windows(engine, windows(engine, text, data, seq_len, validation_only), model::Tape::Keep::nothing,
               [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena& scratch) {
                 const ops::LossSums s = ops::cross_entropy_forward(exec, tape.hidden, engine.model().weights.head.forward, b.labels, {}, scratch);
                 if (exec.dry()) return;
                 r.nats += s.cross_entropy;
                 r.tokens += s.tokens;
                 for (const int32_t label : b.labels)
                   if (label != data::kIgnoreLabel) r.bytes += text.tokenizer() ? text.tokenizer()->text_bytes(label) : 1;
               });
  return r;
}

ops::SelectionQuality IndexerQuality::total() const {
  ops::SelectionQuality sum;
  for (const auto& q : layers) sum += q;
  return sum;
}

IndexerQuality indexer_quality(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len, bool validation_only) {
  IndexerQuality r;
  const model::Model& m = engine.model();
  if (!m.config.uses_indexer()) return r;
  over_windows(engine, windows(engine, infer::TextModel(engine), data, seq_len, validation_only), model::Tape::Keep::for_backward,
               [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena& scratch) {
                 size_t layer = 0;
                 for (size_t i = 0; i < tape.layers.size(); ++i) {
                   const auto* spec = std::get_if<layers::SparseMla::Spec>(&m.blocks[i].attn);
                   if (!spec) continue;
                   if (r.layers.size() <= layer) r.layers.emplace_back();
                   r.layers[layer++] += layers::SparseMla::selection_quality(exec, *spec, context(b), std::get<layers::SparseMla::Saved>(tape.layers[i].attn), scratch);
                 }
               });
  return r;
}

}  // namespace birkhoff::eval
