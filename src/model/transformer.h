// The one forward pass, and its backward: embedding, [attention site, feed-forward site] x L, collapse, final norm. Training, evaluation,
// generation and serving all run forward(); they differ in what the Tape keeps and whether a cache stands before the tokens.
#pragma once
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "layers/tokens.h"
#include "model/model.h"
#include "ops/cross_entropy.h"

namespace birkhoff::model {

// What backward finds stored; the rest it rebuilds by a second forward of the part it needs. Gradients are bitwise equal.
//   none   everything     site   states and inputs of every site     layer   the state at the start of every layer
enum class Recompute { none, site, layer };

using AttentionSaved = std::variant<layers::Mla::Saved, layers::Gqa::Saved>;
using FfnSaved = std::variant<layers::DenseFfn::Saved, layers::Moe::Saved>;

struct LayerTape {
  AttentionSaved attn;
  FfnSaved ffn;
};

// Memory of one forward (and backward) over T tokens.
struct Tape {
  enum class Keep { nothing, for_backward } keep = Keep::nothing;
  Recompute policy = Recompute::none;
  int64_t tokens = 0;
  std::vector<Mat> x;               // state before site s; x.back() after the last
  std::vector<Mat> in, y;           // input and output of site s
  std::vector<ops::SiteSaved> site; // coefficients, always kept
  std::vector<LayerTape> layers;
  ops::HeadSaved head;
  Mat h, hidden, final_rstd;        // collapsed state, after the final norm [T, D], [T, 1]
};

// Rows of earlier tokens per layer: [capacity, cache_cols]; `length` tokens are filled.
struct KvCache {
  std::vector<Mat> layers;
  int64_t length = 0, capacity = 0;
  static KvCache take(Arena& arena, const Model& m, int64_t capacity);
};

Tape reserve_tape(Arena& arena, const Model& m, int64_t tokens, Tape::Keep keep, Recompute policy = Recompute::none, KvCache* cache = nullptr);

// ids [T] -> tape.hidden. With a cache the tokens follow cache->length earlier ones, and its length grows by T.
void forward(const Exec& exec, const Model& m, std::span<const int32_t> ids, const layers::TokenContext& ctx, Tape& tape, Arena& scratch,
             KvCache* cache = nullptr);

struct LossOptions {
  float scale = 1.f;  // of every token's loss: 1 / tokens of the step
  float z_coef = 0.f;
  float balance_scale = 1.f;  // of the balance losses: 1 / parts the step is cut into
};
struct LossResult {
  ops::LossSums sums;
  double balance = 0;  // sum over layers of the balance losses, unscaled
};
// Loss of labels [T] and all gradients: grads += . Needs a tape of a forward that kept what backward needs.
LossResult backward(const Exec& exec, const Model& m, std::span<const int32_t> ids, std::span<const int32_t> labels,
                    const layers::TokenContext& ctx, Tape& tape, const LossOptions& loss, Weights& grads, Arena& scratch);

// Logits [T, V] fp32 of tape.hidden rows.
void logits(const Exec& exec, const Model& m, CMat hidden, Mat out);

}  // namespace birkhoff::model
