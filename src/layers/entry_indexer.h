// The indexer of DeepSeek-V4's CSA layers (models.md G.5): chooses index_topk of the compressed entries a token sees.
// It has keys of its own, made by a narrower compressor, and learns from its KL alone (F.2): its inputs are constants.
#pragma once
#include <span>
#include <string>

#include "layers/compressor.h"
#include "layers/indexer_loss.h"
#include "ops/attention/indexer.h"

namespace birkhoff::layers {

struct EntryIndexer {
  struct Spec {
    int64_t dim = 0, q_lora = 0;  // of the tokens, of the query latent
    int64_t heads = 0, head_dim = 0, topk = 0, ratio = 0, rope = 0;
    float eps = 1e-6f;
    bool dense = false;  // the warm-up: every visible entry is chosen
    Compressor::Spec compressor() const { return {dim, {head_dim, ratio, /*overlap=*/true}, rope, eps}; }
    ops::IndexerShape shape() const { return {heads, head_dim}; }
  };
  struct Weights {
    Linear q_b;      // [heads*head_dim, q_lora]
    Linear weights;  // [heads, dim]
    Compressor::Weights compressor;
    Weights() = default;
    explicit Weights(const Spec& s)
        : q_b({{"q_b_proj", s.heads * s.head_dim}}, s.q_lora),
          weights({{"weights_proj", s.heads}}, s.dim, /*fp32=*/true),
          compressor(s.compressor()) {}
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.q_b);
      f(p, w.weights);
      Compressor::Weights::visit(w.compressor, p + "compressor.", f);
    }
  };
  struct Saved {
    Mat q, w;  // [T, heads*head_dim] rotated; [T, heads] fp32, scaled
    Mat keys;  // [entries, head_dim]
    Compressor::Saved compressor;
    IndexMat chosen;  // [T, min(topk, entries)] ascending, then -1; dense: [T, entries]
  };
  struct Input {
    const ops::CompressorPlan& plan;
    CMat x, latent;  // [T, dim], [T, q_lora] (normalised)
  };
  // cached: q, w and the compressor's rows alone.
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool cached);
  // x [T, dim], latent [T, q_lora] -> saved.q, w and the compressor's rows.
  static void project(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, Saved& saved);
  // What the tokens of `in` choose among its keys: chosen [T, min(topk, entries)], or all with s.dense.
  static IndexMat reserve_choice(Arena& arena, const Spec& s, int64_t tokens, int64_t entries);
  static void choose(const Pass& p, const Spec& s, const ops::CompressorPlan& plan, const ops::IndexerTensors& in,
                     IndexMat chosen);
  // target [T, chosen.cols] fp32: the distribution of attention over the chosen entries. kl.sum takes the sum over
  // tokens of KL(target || softmax of the scores), grad += kl.scale times its gradient.
  static void backward(const Pass& p, const Spec& s, const Weights& w, Input in, const Saved& saved, CMat target,
                       Weights& grad, IndexerLoss& kl);
};

}  // namespace birkhoff::layers
