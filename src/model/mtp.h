// Multi-token prediction (DeepSeek-V3, models.md E.4). Module k = 1..D is one block of its own: from the hidden state of token i after k - 1
// modules and the embedding of token i + k it predicts token i + k + 1, through the model's own embedding and head.
//
//   x = eh_proj [enorm(embedding); hnorm(hidden)],   hidden_k = norm_k(block(x)),   logits = head(hidden_k)
//
// The hidden state that module 1 reads is the model's, after its final norm.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/stack.h"
#include "ops/cross_entropy.h"

namespace birkhoff::model {

// Rows whose module k has a target: token i + k + 1 of its own segment counts in labels.
int64_t mtp_targets(std::span<const int32_t> labels, const layers::TokenContext& ctx, int64_t k);

struct MtpTape {
  StackTape stack;
  std::vector<int32_t> next_ids, labels;  // [T]: token i + k, token i + k + 1 (ops::kIgnoreLabel where there is none)
  Mat embedding, joined;                  // [T, D]; [T, 2D]: both normed halves
  Mat e_rstd, h_rstd;                     // [T, 1]
  Mat hidden, final_rstd;                 // [T, D] after the module's norm, [T, 1]
};

// Memory of all modules over T tokens, for backward.
std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, int64_t tokens, Recompute policy);

// hidden [T, D]: the model's, after its final norm. labels [T] as the model's own loss.
void forward_mtp(const StackRun& r, std::span<const int32_t> ids, std::span<const int32_t> labels, CMat hidden, std::vector<MtpTape>& tapes);

// Losses of every module, and gradients, grads += ; d_hidden [T, D] += the gradient of `hidden`. scale[k]: of the loss of every target of
// module k + 1.
std::vector<ops::LossSums> backward_mtp(const StackRun& r, CMat hidden, std::vector<MtpTape>& tapes, std::span<const float> scale, LayerLosses& losses,
                                        Mat d_hidden, Weights& grads);

}  // namespace birkhoff::model
