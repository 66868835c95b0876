#include "model/pass.h"

#include <algorithm>
#include <numeric>

namespace birkhoff::model {

void SequenceTokens::place(int64_t tokens, int64_t past) {
  position_.resize(static_cast<size_t>(tokens));
  std::iota(position_.begin(), position_.end(), static_cast<int32_t>(past));
  first_key_.assign(position_.size(), 0);
}

void Pass::Need::include(const Need& other) {
  kept = std::max(kept, other.kept);
  scratch = std::max(scratch, other.scratch);
}

Pass::Need Pass::plan(const std::function<void(const Exec&, Pass&)>& use, int threads) {
  Arena kept = Arena::measuring(), scratch = Arena::measuring();
  Pass pass(kept, scratch);
  use(Exec::dry_run(threads), pass);
  return {kept.peak(), scratch.peak()};
}

Pass::Pass(const Need& need)
    : own_kept_(std::make_unique<Arena>(need.kept)),
      own_scratch_(std::make_unique<Arena>(need.scratch)),
      kept_(own_kept_.get()),
      scratch_(own_scratch_.get()) {}

Tape& Pass::forward(const Exec& exec, const Model& m, std::span<const int32_t> ids, const layers::TokenContext& ctx,
                    const PassOptions& options) {
  kept_->reset();
  scratch_->reset();
  tape_ = reserve_tape(*kept_, m, static_cast<int64_t>(ids.size()), options.keep, options.policy, options.cache);
  model::forward({exec, m, ctx, *scratch_}, ids, tape_, options.cache);
  return tape_;
}

Mat Pass::logits(const Exec& exec, const Model& m, int64_t first, int64_t rows) {
  Mat out = scratch_->mat(f32_t, rows, m.config.vocab_size);
  model::logits(exec, m, tape_.hidden.row_block(first, rows), out);
  return out;
}

}  // namespace birkhoff::model
