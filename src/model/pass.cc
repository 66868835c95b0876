#include "model/pass.h"

#include <algorithm>
#include <numeric>

#include "ops/rows/elementwise.h"

namespace birkhoff::model {

SequenceTokens::SequenceTokens(int64_t tokens)
    : position_(static_cast<size_t>(tokens)), first_key_(static_cast<size_t>(tokens), 0) {
  std::iota(position_.begin(), position_.end(), 0);
}

void CachedTokens::clear() {
  position_.clear();
  first_key_.clear();
  parts_.clear();
}

void CachedTokens::add(const KvCache& text, int64_t past, int64_t tokens, layers::MlaForm form, int64_t ahead) {
  parts_.push_back(text.part(this->tokens(), tokens, past, form));
  for (int64_t t = past; t < past + tokens; ++t) {
    position_.push_back(static_cast<int32_t>(std::max<int64_t>(0, t - ahead)));
    first_key_.push_back(static_cast<int32_t>(std::min(t, ahead)));
  }
}

layers::TokenContext CachedTokens::context() const {
  layers::TokenContext ctx{position_, first_key_, {&start_, 1}, {&start_, 1}};
  ctx.parts = parts_;
  return ctx;
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
  tape_ = reserve_tape(*kept_, m, static_cast<int64_t>(ids.size()), options.caches ? Tape::Keep::cached : options.keep,
                       options.policy);
  model::forward({exec, m, ctx, *scratch_}, ids, tape_, options.caches);
  hidden_ = tape_.hidden;
  return tape_;
}

const MtpTape& Pass::predict(const Exec& exec, const Model& m, size_t k, std::span<const int32_t> ids,
                             const layers::TokenContext& ctx, const CachePool& caches) {
  kept_->reset();
  scratch_->reset();
  module_ = reserve_mtp_cached(*kept_, m, k, static_cast<int64_t>(ids.size()));
  forward_mtp_cached({exec, m, ctx, *scratch_}, k, ids, module_, caches);
  hidden_ = module_.hidden;
  return module_;
}

Mat Pass::logits(const Exec& exec, const Model& m, int64_t first, int64_t rows) {
  Mat out = scratch_->mat(f32_t, rows, m.config.vocab_size);
  model::logits(exec, m, hidden_.row_block(first, rows), out);
  return out;
}

Mat Pass::logits(const Exec& exec, const Model& m, std::span<const int64_t> rows) {
  const auto n = static_cast<int64_t>(rows.size());
  Mat out = scratch_->mat(f32_t, n, m.config.vocab_size);
  Arena::Scope scope(*scratch_);
  const Mat hidden = scratch_->mat(m.compute, n, hidden_.cols);
  for (int64_t i = 0; i < n; ++i)
    ops::copy(exec, hidden_.row_block(rows[static_cast<size_t>(i)], 1), hidden.row_block(i, 1));
  model::logits(exec, m, hidden, out);
  return out;
}

}  // namespace birkhoff::model
