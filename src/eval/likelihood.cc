#include "eval/likelihood.h"

#include "infer/text_model.h"

namespace birkhoff::eval {

ops::LossSums batch_losses(const Exec& exec, const model::Model& m, model::Pass& pass,
                           const std::vector<data::Batch>& batches) {
  ops::LossSums sums;
  over_batches(exec, m, pass, batches, model::Tape::Keep::nothing,
               [&](const Exec& run, const data::Batch& b, const model::Tape& tape, Arena& scratch) {
                 const ops::LossSums s =
                     ops::cross_entropy_forward(run, tape.hidden, m.weights.head.forward, b.labels, {}, scratch);
                 sums.cross_entropy += s.cross_entropy;
                 sums.z += s.z;
                 sums.tokens += s.tokens;
               });
  return sums;
}

Likelihood window_likelihood(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len,
                             bool validation_only, const Advance& advance) {
  Likelihood r;
  const infer::TextModel text(engine);
  over_windows(
      engine, windows(engine, text, data, seq_len, validation_only), model::Tape::Keep::nothing,
      [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena& scratch) {
        const ops::LossSums s =
            ops::cross_entropy_forward(exec, tape.hidden, engine.model().weights.head.forward, b.labels, {}, scratch);
        if (exec.dry()) return;
        r.nats += s.cross_entropy;
        r.tokens += s.tokens;
        for (const int32_t label : b.labels)
          if (label != kIgnoreLabel) r.bytes += text.tokenizer() ? text.tokenizer()->text_bytes(label) : 1;
      },
      advance);
  return r;
}

ops::SelectionQuality IndexerQuality::total() const {
  ops::SelectionQuality sum;
  for (const auto& q : layers) sum += q;
  return sum;
}

IndexerQuality indexer_quality(const infer::Engine& engine, const std::vector<std::string>& data, int64_t seq_len,
                               bool validation_only) {
  IndexerQuality r;
  const model::Model& m = engine.model();
  if (!m.config.uses_indexer()) return r;
  over_windows(engine, windows(engine, infer::TextModel(engine), data, seq_len, validation_only),
               model::Tape::Keep::for_backward,
               [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena& scratch) {
                 size_t layer = 0;
                 for (size_t i = 0; i < tape.layers.size(); ++i) {
                   const auto* spec = std::get_if<layers::SparseMla::Spec>(&m.blocks[i].attn);
                   if (!spec) continue;
                   if (r.layers.size() <= layer) r.layers.emplace_back();
                   r.layers[layer++] += layers::SparseMla::selection_quality(
                       exec, *spec, context(b), std::get<layers::SparseMla::Saved>(tape.layers[i].attn), scratch);
                 }
               });
  return r;
}

}  // namespace birkhoff::eval
