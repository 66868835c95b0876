#include "eval/windows.h"

#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "data/chat_corpus.h"
#include "data/corpus.h"
#include "model/config/json_fields.h"

namespace birkhoff::eval {

int64_t trained_seq_len(const std::string& directory) {
  const nlohmann::json j = checkpoint::read_config_json(checkpoint::resolve_model_directory(directory));
  return j.contains("training") ? model::field_or<int64_t>(j["training"], "seq_len", 256) : 256;
}

std::vector<data::Batch> windows(const infer::Engine& engine, const infer::TextModel& text,
                                 const std::vector<std::string>& paths, int64_t seq_len, bool validation_only) {
  if (seq_len == 0) seq_len = trained_seq_len(engine.directory());
  if (seq_len < 1 || seq_len > engine.max_positions())
    throw Error("eval", "--seq-len " + std::to_string(seq_len) + ", the model allows 1 to " +
                            std::to_string(engine.max_positions()));
  if (data::are_conversations(paths)) {
    if (!text.tokenizer())
      throw Error("eval", engine.directory() + ": conversations need a tokenizer",
                  "put tokenizer.json beside the weights");
    const auto format = text::chat::ChatFormat::open(engine.directory());
    const data::ChatCorpus corpus = validation_only ? data::ChatCorpus(paths, {}, text.tokenizer(), format, seq_len, 0)
                                                    : data::ChatCorpus({}, paths, text.tokenizer(), format, seq_len, 0);
    return corpus.validation_batches(1, 0);
  }
  const data::Tokenization tokenization{text.tokenizer(), "", 0, 0, engine.exec().threads()};
  const data::Tokenization* tokens = text.tokenizer() ? &tokenization : nullptr;
  // Validating "on" a path takes all of it.
  const data::Corpus corpus =
      validation_only ? data::Corpus(paths, {}, seq_len, 0, tokens) : data::Corpus({}, paths, seq_len, 0, tokens);
  return corpus.validation_batches(1, 0);
}

layers::TokenContext context(const data::Batch& b) {
  return {b.position, b.first_key, b.segment_start, b.sequence_start};
}

void over_windows(const infer::Engine& engine, const std::vector<data::Batch>& batches, model::Tape::Keep keep,
                  const WindowUse& use, const Advance& advance) {
  if (batches.empty()) return;
  const model::Model& m = engine.model();
  const auto pass = [&](const Exec& exec, const data::Batch& b, Arena& tape_memory, Arena& scratch) {
    model::Tape tape = model::reserve_tape(tape_memory, m, static_cast<int64_t>(b.ids.size()), keep);
    model::forward(exec, m, b.ids, context(b), tape, scratch);
    use(exec, b, tape, scratch);
  };
  Arena tape_need = Arena::measuring(), scratch_need = Arena::measuring();
  pass(Exec::dry_run(1), batches[0], tape_need, scratch_need);
  Arena tape_memory(tape_need.peak()), scratch(scratch_need.peak());
  const auto all = static_cast<int64_t>(batches.size());
  for (int64_t i = 0; i < all; ++i) {
    tape_memory.reset();
    scratch.reset();
    pass(engine.exec(), batches[static_cast<size_t>(i)], tape_memory, scratch);
    if (advance) advance(i + 1, all);
  }
}

}  // namespace birkhoff::eval
