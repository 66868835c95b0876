#include "eval/windows.h"

#include <nlohmann/json.hpp>

#include "checkpoint/model_files.h"
#include "core/error.h"
#include "data/chat_corpus.h"
#include "data/corpus.h"
#include "data/documents.h"
#include "model/config/json_fields.h"

namespace birkhoff::eval {

int64_t trained_seq_len(const std::string& directory) {
  if (directory.empty()) return 256;
  const nlohmann::json j = checkpoint::read_model_config(checkpoint::resolve_model(directory));
  return j.contains("training") ? model::field_or<int64_t>(j["training"], "seq_len", 256) : 256;
}

std::vector<data::Batch> windows(const infer::Engine& engine, const infer::TextModel& text,
                                 const std::vector<std::string>& paths, int64_t seq_len, bool validation_only) {
  for (const std::string& path : paths)
    if (data::split_weight(path).first != path)
      throw Error("eval", path + ": a weight says how often training draws from a source; here all of it is read once",
                  "leave out what follows the last @", ExitCode::usage);
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

void over_batches(const Exec& exec, const model::Model& m, model::Pass& pass, const std::vector<data::Batch>& batches,
                  model::Tape::Keep keep, const WindowUse& use, const Advance& advance) {
  const auto all = static_cast<int64_t>(batches.size());
  for (int64_t i = 0; i < all; ++i) {
    const data::Batch& b = batches[static_cast<size_t>(i)];
    use(exec, b, pass.forward(exec, m, b.ids, context(b), {keep}), pass.scratch());
    if (advance) advance(i + 1, all);
  }
}

void over_windows(const infer::Engine& engine, const std::vector<data::Batch>& batches, model::Tape::Keep keep,
                  const WindowUse& use, const Advance& advance) {
  if (batches.empty()) return;
  const model::Pass::Need need = model::Pass::plan(
      [&](const Exec& dry, model::Pass& pass) { over_batches(dry, engine.model(), pass, {batches[0]}, keep, use); });
  model::Pass pass(need);
  over_batches(engine.exec(), engine.model(), pass, batches, keep, use, advance);
}

}  // namespace birkhoff::eval
