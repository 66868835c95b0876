// Expert affinities of one token from its logits, and their derivative. Numerically stable for any finite logit.
#pragma once
#include <cstdint>

#include "ops/experts/routing.h"

namespace birkhoff::ops {

// scores [n]: softmax, sigmoid, or sqrt(softplus).
void router_scores(Scoring scoring, const float* logits, int64_t n, float* scores);
// d_logits [n] (+)= J^T d_scores.
void router_scores_backward(Scoring scoring, const float* logits, const float* scores, const float* d_scores, int64_t n,
                            float* d_logits, bool accumulate);

}  // namespace birkhoff::ops
