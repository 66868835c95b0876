// The one forward pass, and its backward: embedding, the stack of blocks, final norm. Training, evaluation, generation
// and serving all run forward(); they differ in what the Tape keeps and whether a cache stands before the tokens.
#pragma once
#include <cstdint>
#include <span>

#include "model/mtp.h"
#include "ops/rows/cross_entropy.h"

namespace birkhoff::model {

// Memory of one forward (and backward) over T tokens.
struct Tape : StackTape {
  Mat hidden, final_rstd;    // after the final norm [T, D], [T, 1]
  std::vector<MtpTape> mtp;  // filled by the caller (reserve_mtp) when prediction modules are trained
};

Tape reserve_tape(Arena& arena, const Model& m, int64_t tokens, Tape::Keep keep, Recompute policy = Recompute::none);

// ids [T] -> tape.hidden. With caches the tokens are those of ctx.parts, which go into them.
void forward(const StackRun& r, std::span<const int32_t> ids, Tape& tape, const CachePool* caches = nullptr);

// scale, z_coef and objective are those of the model's own head.
struct LossOptions : ops::HeadLoss {
  float balance_scale = 1.f;     // of the balance losses: the part's share of the step's sequences
  std::vector<float> mtp_scale;  // module k: coefficient / (modules * its targets of the step)
  // Of every token's KL of an indexer: its coefficient / tokens of the step; 0: they do not learn.
  float indexer_scale = 0.f;
};
struct LossResult {
  ops::LossSums sums;
  double balance = 0;  // sum over layers of the balance losses, unscaled
  std::vector<ops::LossSums> mtp;
  double indexer = 0;  // sum over layers and tokens of the indexers' KL, nats
};
// Loss of labels [T] and all gradients: grads += . Needs a tape of a forward that kept what backward needs.
LossResult backward(const StackRun& r, std::span<const int32_t> ids, std::span<const int32_t> labels, Tape& tape,
                    const LossOptions& loss, Weights& grads);

// Logits [T, V] fp32 of tape.hidden rows.
void logits(const Exec& exec, const Model& m, CMat hidden, Mat out);

}  // namespace birkhoff::model
