// One way to drive the forward: its memory is planned by a dry run, taken once, and used by one pass after another.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/transformer.h"

namespace birkhoff::model {

// The tokens of one whole text; what a TokenContext views.
class SequenceTokens {
 public:
  explicit SequenceTokens(int64_t tokens);
  layers::TokenContext context() const { return {position_, first_key_, {&start_, 1}, {&start_, 1}}; }

 private:
  std::vector<int32_t> position_, first_key_;
  int32_t start_ = 0;
};

// Pieces of several texts, each behind what its cache holds, as one pass; what a TokenContext views.
class CachedTokens {
 public:
  void clear();
  // The text's next `tokens`, as the last rows so far; room for them was made, and their caches do not move meanwhile.
  void add(const KvCache& text, int64_t tokens, layers::MlaForm form) { add(text, text.length(), tokens, form); }
  // Its tokens past .. to a prediction module that reads the token `ahead` places further (mtp.h); 0: to the model.
  void add(const KvCache& text, int64_t past, int64_t tokens, layers::MlaForm form, int64_t ahead = 0);
  int64_t tokens() const { return static_cast<int64_t>(position_.size()); }
  layers::TokenContext context() const;

 private:
  std::vector<int32_t> position_, first_key_;
  std::vector<layers::CachedPart> parts_;
  int32_t start_ = 0;
};

// What a forward keeps, and the caches that its tokens go into.
struct PassOptions {
  Tape::Keep keep = Tape::Keep::nothing;
  Recompute policy = Recompute::none;
  const CachePool* caches = nullptr;  // nothing is kept then
};

class Pass {
 public:
  // Bytes of both arenas.
  struct Need {
    size_t kept = 0, scratch = 0;
    void include(const Need& other);  // the larger of each
    bool operator==(const Need&) const = default;
  };

  // What `use` takes at most, which runs once on a dry Exec and over a pass of measuring arenas: it must take what the
  // real ones take, and read nothing.
  static Need plan(const std::function<void(const Exec& dry, Pass& pass)>& use, int threads = 1);

  // Memory of its own. Throws Error when the system has none.
  explicit Pass(const Need& need);
  // Memory of somebody else, a trainer's for example, who planned it; both arenas outlive the pass.
  Pass(Arena& kept, Arena& scratch) : kept_(&kept), scratch_(&scratch) {}
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  // Gives back what the pass before took, and runs ids [T] standing at ctx: the tape with .hidden [T, D], valid until
  // the next forward.
  Tape& forward(const Exec& exec, const Model& m, std::span<const int32_t> ids, const layers::TokenContext& ctx,
                const PassOptions& options = {});
  // The same of prediction module k (from 0) over the caches of its texts.
  const MtpTape& predict(const Exec& exec, const Model& m, size_t k, std::span<const int32_t> ids,
                         const layers::TokenContext& ctx, const CachePool& caches);
  // Logits [rows, V] fp32 of rows of the forward, in scratch: of the caller's Arena::Scope, or until the next forward.
  Mat logits(const Exec& exec, const Model& m, int64_t first, int64_t rows);
  Mat logits(const Exec& exec, const Model& m, std::span<const int64_t> rows);  // of these rows, in their order

  Arena& kept() { return *kept_; }  // for what backward needs besides, such as the tapes of prediction modules
  Arena& scratch() { return *scratch_; }

 private:
  std::unique_ptr<Arena> own_kept_, own_scratch_;
  Arena *kept_, *scratch_;
  Tape tape_;
  MtpTape module_;
  Mat hidden_;  // of the last forward
};

}  // namespace birkhoff::model
