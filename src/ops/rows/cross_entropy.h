// Language-model head and cross-entropy together, in chunks of tokens: [tokens, vocabulary] never exists as a whole.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/gemm.h"

namespace birkhoff::ops {

inline constexpr int32_t kIgnoreLabel = -100;
inline constexpr int64_t kLossChunk = 512;  // tokens

struct LossSums {
  double cross_entropy = 0;  // sum over counted tokens of -log softmax(logits)[label], nats
  double z = 0;              // sum over counted tokens of (log sum exp logits)^2
  int64_t tokens = 0;        // counted tokens: label != kIgnoreLabel
};

// hidden [T, D], head: W^T packed [D, V] (fp32 or bf16 like hidden). Adds nothing to gradients.
// token_loss, when not empty, is [T] and receives each token's cross-entropy (0 where ignored).
LossSums cross_entropy_forward(const Exec& exec, CMat hidden, const Packed& head_t, std::span<const int32_t> labels,
                               std::span<float> token_loss, Arena& scratch);

// Loss and gradients in one pass over the chunks: L = scale * (sum CE + z_coef * sum z). d_hidden [T, D] assigned,
// d_head [V, D] fp32 += (a view without memory: the head is frozen). head: W packed [V, D] for d_hidden. scale is
// usually 1 / (tokens of the whole step).
LossSums cross_entropy_backward(const Exec& exec, CMat hidden, const Packed& head_t, const Packed& head,
                                std::span<const int32_t> labels, float scale, float z_coef, Mat d_hidden, Mat d_head,
                                Arena& scratch);

}  // namespace birkhoff::ops
