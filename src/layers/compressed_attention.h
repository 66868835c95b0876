// Attention of DeepSeek-V4 (models.md G.3 - G.6): one latent row per token is key and value of every head; a query sees
// the last `window` tokens and compressed entries of the past.
//   ratio 0         the window alone
//   ratio 4 (CSA)   windows of 4 tokens that overlap; an indexer chooses the entries
//   other (HCA)     windows of `ratio` tokens; every visible entry is attended
// A sink per head only enlarges the softmax's denominator. The output of a head is turned back by its query's position,
// and projected in groups of heads.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "layers/cache.h"
#include "layers/compressor.h"
#include "layers/entry_indexer.h"
#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/sparse_attention.h"

namespace birkhoff::layers {

struct CompressedAttention {
  struct Spec {
    using Layer = CompressedAttention;
    int64_t dim = 0, heads = 0, head_dim = 0, rope = 0, q_lora = 0;
    int64_t groups = 1, o_lora = 0;  // of the output projection
    int64_t window = 0, ratio = 0;
    int64_t index_heads = 0, index_dim = 0, index_topk = 0;  // with an indexer
    float eps = 1e-6f;
    bool dense = false;  // the indexer's warm-up: attention sees every visible entry, and so does the KL

    static constexpr int64_t kIndexedRatio = 4;
    bool indexed() const { return ratio == kIndexedRatio; }
    int64_t group_cols() const { return heads * head_dim / groups; }
    Compressor::Spec compressor() const { return {dim, {head_dim, ratio, indexed()}, rope, eps}; }
    EntryIndexer::Spec indexer() const {
      return {dim, q_lora, index_heads, index_dim, index_topk, ratio, rope, eps, dense};
    }
    // Per `ratio` tokens one entry and one key of the indexer; and the window. (The rows that compressors keep of an
    // unfinished window are not counted: models.md G.11.)
    CacheSize cache_size() const {
      const auto entry = static_cast<double>(head_dim + (indexed() ? index_dim : 0));
      return {ratio ? entry / static_cast<double>(ratio) : 0, window * head_dim};
    }
    // Per query and key of a long context; the window is left out.
    int64_t score_products() const {
      return ratio ? (2 * heads * head_dim + (indexed() ? index_heads * (index_dim + 1) : 0)) / ratio : 0;
    }
  };
  struct Weights {
    Linear in;                       // [q_lora + head_dim, dim]: q_a_proj above kv_proj
    Mat q_norm, kv_norm;             // [1, q_lora], [1, head_dim]
    Linear q_b;                      // [heads*head_dim, q_lora]
    Mat sinks;                       // [1, heads]
    GroupedLinear o_a;               // [groups*o_lora, group_cols]: a product of every group of heads
    Linear o_b;                      // [dim, groups*o_lora]
    Compressor::Weights compressor;  // ratio > 0
    EntryIndexer::Weights indexer;   // indexed
    Weights() = default;
    explicit Weights(const Spec& s);
    bool compressed() const { return !compressor.norm.empty(); }
    bool indexed() const { return indexer.weights.out() > 0; }
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.in);
      f(p + "q_a_norm.weight", w.q_norm, Role::norm);
      f(p, w.q_b);
      f(p + "kv_norm.weight", w.kv_norm, Role::norm);
      f(p + "sinks", w.sinks, Role::bias);
      f(p, w.o_a);
      f(p, w.o_b);
      if (w.compressed()) Compressor::Weights::visit(w.compressor, p + "compressor.", f);
      if (w.indexed()) EntryIndexer::Weights::visit(w.indexer, p + "compressor.indexer.", f);
    }
  };
  // What texts keep of their earlier tokens, each in a slot of its own: windows and unfinished entries are overwritten
  // as it goes on, so that there is no way back.
  struct Slot {
    Mat kv;  // [window + entries, head_dim]: the last window rows but one end at row window - 1, then all entries
    Mat index_keys;  // [entries, index_dim]
    Compressor::Cache pending, index_pending;
    static Slot take(Arena& arena, const Spec& s, DType dtype, int64_t capacity);
  };
  struct Cache {
    using Slot = CompressedAttention::Slot;
    std::vector<Slot> slots;  // in the compute type, whatever that of rows
    Cache(ops::PageMemory& /*memory*/, const Spec& /*s*/) {}
  };
  struct Saved {
    Mat a;                    // [T, q_lora + head_dim]: the first product
    Mat cq, q_rstd, kv_rstd;  // normalised query latent [T, q_lora]
    Mat q_raw, head_rstd;     // [T, heads*head_dim] before its norm, [T*heads, 1]
    Mat q;                    // [T, heads*head_dim] normalised and rotated
    Mat kv;                   // [T + entries, head_dim]: rows of tokens, then entries (which a cache has instead)
    Mat o, lse;               // [T, heads*head_dim] before it is turned back, [T, heads]
    Mat y;                    // [T, groups*o_lora]
    ops::CompressorPlan plan;
    Compressor::Saved compressor;
    EntryIndexer::Saved indexer;
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep);
  // Without a cache the T tokens are all there is; with one every part of the pass continues the text of its slot.
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y,
                      const Cache* cache = nullptr);
  // Without a cache. dx assigned, grad += . With kl.scale != 0 the indexer learns: its gradient is that of its KL
  // alone, which reaches nothing else.
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad, IndexerLoss& kl);
};

}  // namespace birkhoff::layers
