// DeepSeek sparse attention (models.md F): multi-head latent attention over the keys that its lightning indexer
// selects. A token that sees no more than `topk` keys is computed by Mla's own attention, with its bits.
#pragma once
#include <string>
#include <vector>

#include "layers/indexer.h"
#include "layers/indexer_loss.h"
#include "layers/mla.h"

namespace birkhoff::layers {

struct SparseMla {
  struct Spec {
    using Layer = SparseMla;
    Mla::Spec mla;  // with a query latent
    Indexer::Spec indexer;
    bool dense = false;  // the indexer's warm-up: attention sees everything, and so does the KL
    CacheSize cache_size() const {
      const CacheSize keys = mla.cache_size();
      return {keys.per_token + static_cast<double>(indexer.head_dim), 0, keys.scales + 1};
    }
    int64_t score_products() const { return mla.score_products() + indexer.heads * (indexer.head_dim + 1); }
  };
  struct Weights {
    Mla::Weights mla;
    Indexer::Weights indexer;
    Weights() = default;
    explicit Weights(const Spec& s) : mla(s.mla), indexer(s.indexer) {}
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      Mla::Weights::visit(w.mla, p, f);
      Indexer::Weights::visit(w.indexer, p + "indexer.", f);
    }
  };
  struct Cache {
    Mla::Cache mla;
    ops::PagedRows index;  // [.., index head_dim]
    using Slot = NoSlot;
    std::vector<Slot> slots;
    Cache(ops::PageMemory& memory, const Spec& s) : mla(memory, s.mla), index(memory, {s.indexer.head_dim}) {}
  };
  struct Saved {
    Mla::Saved mla;
    Indexer::Saved indexer;
    IndexMat keys;  // [T, min(topk, T)]: what every token sees; empty when dense, and with a cache
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep);
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y,
                      const Cache* cache = nullptr);
  // dx assigned. grad += of the loss whose dy is given, which reaches all but the indexer, and of kl, which reaches the
  // indexer alone: the KL runs over what the token sees.
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad, IndexerLoss& kl);
  // How well the selection of a forward without a cache covers what attention would give the keys if it saw all of
  // them. One sequence of T tokens; takes T^2 numbers of scratch.
  static ops::SelectionQuality selection_quality(const Exec& exec, const Spec& s, const TokenContext& ctx,
                                                 const Saved& saved, Arena& scratch);
};

}  // namespace birkhoff::layers
