#include "eval/likelihood.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "data/corpus.h"
#include "model/transformer.h"

namespace birkhoff::eval {
namespace {

int64_t trained_seq_len(const std::string& directory) {
  const nlohmann::json j = checkpoint::read_config_json(directory);
  return j.contains("training") ? j["training"].value("seq_len", int64_t{256}) : 256;
}

// Bytes a window takes: tape and working memory, by a dry run.
std::pair<size_t, size_t> window_memory(const model::Model& m, int64_t seq_len) {
  Arena tape_memory = Arena::measuring(), scratch = Arena::measuring();
  const Exec dry = Exec::dry_run(1);
  const std::vector<int32_t> zeros(static_cast<size_t>(seq_len));
  const int32_t start = 0;
  const layers::TokenContext ctx{zeros, zeros, {&start, 1}, {&start, 1}};
  model::Tape tape = model::reserve_tape(tape_memory, m, seq_len, model::Tape::Keep::nothing);
  model::forward(dry, m, zeros, ctx, tape, scratch);
  ops::cross_entropy_forward(dry, tape.hidden, m.weights.head.forward, zeros, {}, scratch);
  return {tape_memory.peak(), scratch.peak()};
}

}  // namespace

Likelihood window_likelihood(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len, bool validation_only) {
  const model::Model& m = engine.model();
  if (seq_len == 0) seq_len = std::min(trained_seq_len(engine.directory()), engine.max_positions());
  if (seq_len < 1 || seq_len > engine.max_positions())
    throw Error("eval", "--seq-len " + std::to_string(seq_len) + ", the model allows 1 to " + std::to_string(engine.max_positions()));
  if (m.config.vocab_size != 256)
    throw Error("eval", "the model has " + std::to_string(m.config.vocab_size) + " tokens and no tokenizer; only byte models (256) read text");
  // Validating "on" a path takes all of it.
  const data::Corpus corpus = validation_only ? data::Corpus(data, {}, seq_len, 0) : data::Corpus({}, data, seq_len, 0);
  Likelihood r;
  const auto [tape_bytes, scratch_bytes] = window_memory(m, seq_len);
  Arena tape_memory(tape_bytes), scratch(scratch_bytes);
  for (const data::Batch& b : corpus.validation_batches(1, 0)) {
    tape_memory.reset();
    scratch.reset();
    const layers::TokenContext ctx{b.position, b.first_key, b.segment_start, b.sequence_start};
    model::Tape tape = model::reserve_tape(tape_memory, m, static_cast<int64_t>(b.ids.size()), model::Tape::Keep::nothing);
    model::forward(engine.exec(), m, b.ids, ctx, tape, scratch);
    const ops::LossSums s = ops::cross_entropy_forward(engine.exec(), tape.hidden, m.weights.head.forward, b.labels, {}, scratch);
    r.nats += s.cross_entropy;
    r.tokens += s.tokens;
    r.bytes += s.tokens;  // a token is a byte
  }
  return r;
}

}  // namespace birkhoff::eval
