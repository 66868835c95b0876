// A stack of blocks: [attention site, feed-forward site] x n over one residual state, forward and backward. The model's
// own layers are one stack, every multi-token prediction module is another of one block.
#pragma once
#include <cstdint>
#include <vector>

#include "layers/tokens.h"
#include "model/cache_pool.h"
#include "model/model.h"
#include "ops/experts/balance.h"
#include "ops/residual/residual_backward.h"

namespace birkhoff::model {

// What backward finds stored; the rest it rebuilds by a second forward of the part it needs. Gradients are bitwise
// equal.
//   none   everything     site   states and inputs of every site     layer   the state at the start of every layer
enum class Recompute { none, site, layer };

struct LayerTape {
  AttentionSaved attn;
  FfnSaved ffn;
};

// Memory of one forward (and backward) of a stack over T tokens.
struct StackTape {
  // cached: nothing, of tokens that go into caches
  enum class Keep { nothing, for_backward, cached } keep = Keep::nothing;
  Recompute policy = Recompute::none;
  int64_t tokens = 0;
  int64_t first_block = 0;           // of the model's blocks
  std::vector<Mat> x;                // state before site s of the stack; x.back() after the last
  std::vector<Mat> in, y;            // input and output of site s
  std::vector<ops::SiteSaved> site;  // coefficients, always kept
  std::vector<LayerTape> layers;
  ops::HeadSaved head;
  Mat h;  // collapsed state
};

// What training does with lightning indexers (models.md F.2): whether they learn, and whether attention sees everything
// meanwhile (their warm-up) or what they select.
struct IndexerTraining {
  bool learns = false, dense = false;
};
void set_indexer_training(Model& m, IndexerTraining t);

// What every pass needs, over the model or over a stack of its blocks.
struct StackRun {
  const Exec& exec;
  const Model& m;
  const layers::TokenContext& ctx;
  Arena& scratch;
  layers::Pass layer(int64_t block) const;  // what the layers of one of the model's blocks are handed
};

// Of the model's blocks.
struct BlockRange {
  int64_t first, count;
};
void reserve_stack(Arena& arena, const Model& m, BlockRange blocks, int64_t tokens, StackTape::Keep keep,
                   Recompute policy, StackTape& t);

// t.x[0] [T, n*D] -> t.h [T, D], the streams collapsed by `collapse`. With caches the tokens are those of ctx.parts.
void forward_stack(const StackRun& r, const ops::HeadWeights& collapse, StackTape& t,
                   const CachePool* caches = nullptr);

// Losses of the layers themselves: what their gradients are multiplied by, and the sums over layers, unscaled.
struct LayerLosses {
  ops::BalanceLoss balance;
  layers::IndexerLoss indexer;
};

// d.dh [T, D], of t.h -> d.dx [T, n*D], the gradient of t.x[0] (assigned); grads and d_collapse += , of the layers' own
// losses too. d.accumulate: dx comes with a gradient of the last state, t.x.back(), from elsewhere.
void backward_stack(const StackRun& r, const ops::HeadWeights& collapse, StackTape& t, const ops::HeadCotangents& d,
                    LayerLosses& losses, Weights& grads, ops::HeadWeights& d_collapse);

}  // namespace birkhoff::model
