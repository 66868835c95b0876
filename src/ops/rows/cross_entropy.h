// Language-model head and cross-entropy together, in chunks of tokens: [tokens, vocabulary] never exists as a whole.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/label.h"
#include "core/view.h"
#include "ops/gemm/gemm.h"

namespace birkhoff::ops {

inline constexpr int64_t kLossChunk = 512;  // tokens

// What an objective makes of one counted token.
struct TokenValue {
  double value = 0;  // its share of what is minimised
  double slope = 0;  // d value / d log p; log p = log softmax(logits)[label]
};
// Of token t of the call (a row of hidden). Called once a token, by several threads at once: a pure function.
using TokenObjective = std::function<TokenValue(int64_t t, double log_p)>;

// What is minimised: the sum over counted tokens of objective(t, log p) + scale * z_coef * (log sum exp logits)^2.
struct HeadLoss {
  float scale = 1.f;  // usually 1 / (tokens of the whole step)
  float z_coef = 0.f;
  TokenObjective objective = nullptr;  // nullptr: next-token prediction, -scale * log p
};

struct LossSums {
  double cross_entropy = 0;  // sum over counted tokens of -log p, nats
  double z = 0;              // sum over counted tokens of (log sum exp logits)^2
  int64_t tokens = 0;        // counted tokens: label != kIgnoreLabel
  double objective = 0;      // sum of the objective's values; of cross_entropy_backward alone
};

// log sum_i e^logits_i of one row of at least one; log p of a token is its logit less that, in training as in serving.
double log_sum_exp(std::span<const float> logits);

// hidden [T, D], head: W^T packed [D, V] (fp32 or bf16 like hidden). Adds nothing to gradients.
// token_loss, when not empty, is [T] and receives each token's cross-entropy (0 where ignored).
LossSums cross_entropy_forward(const Exec& exec, CMat hidden, const Packed& head_t, std::span<const int32_t> labels,
                               std::span<float> token_loss, Arena& scratch);

// The head's weight W [V, D] in both packings.
struct PackedHead {
  const Packed& forward;   // W^T packed [D, V]: hidden to logits
  const Packed& backward;  // W packed [V, D]: their gradient to d_hidden
};
// Sums and gradients in one pass over the chunks. d_hidden [T, D] assigned, d_head [V, D] fp32 += (a view without
// memory: the head is frozen).
LossSums cross_entropy_backward(const Exec& exec, CMat hidden, const PackedHead& head, std::span<const int32_t> labels,
                                const HeadLoss& loss, Mat d_hidden, Mat d_head, Arena& scratch);

}  // namespace birkhoff::ops
