// Expert choice and its gradient. Spec: models.md B, C.2, D.5, E.2; scores and weights are fp32.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

enum class Scoring { softmax, sigmoid, sqrtsoftplus };

struct RouterRule {
  Scoring scoring = Scoring::softmax;
  int64_t experts = 0, active = 0;        // E, K
  int64_t groups = 1, active_groups = 1;  // contiguous groups of E/groups experts; the others are excluded
  bool bias = false;                      // noaux_tc: a bias takes part in the choice, never in the weight
  bool normalise = false;                 // divide the chosen scores by (their sum + 1e-20)
  float scaling = 1.f;                    // multiplies the weights
  int64_t masked = 0;  // a probe, 0 = off: a token's so many experts of highest affinity (scores, without the bias;
                       // ties: the lower index) are no choice, and groups are scored without them. masked + active <=
                       // experts of the active groups. Not of given choices; backward takes the choice as it is
};
// softmax_topk: {softmax}; Mixtral: {softmax, normalise}; V2 greedy / group_limited_greedy: {softmax, groups by their
// maximum}; V3 noaux_tc: {sigmoid, bias, normalise, groups by the sum of their two best biased scores}; V4:
// {sqrtsoftplus, bias, normalise}.

// What routing saves for backward; also what dispatch needs. Routing is always stored, never recomputed.
struct Routing {
  Mat scores;                // [T, E] fp32: softmax / sigmoid / sqrt(softplus) of the logits
  Mat weights;               // [T, K] fp32 combination weights
  std::span<int32_t> index;  // [T*K] chosen experts, ascending within a token
  std::span<int32_t> count;  // [E] tokens per expert
  // Rows of the dispatched matrix: expert-major, tokens ascending within an expert.
  std::span<int32_t> offsets;   // [E+1] first row of each expert
  std::span<int32_t> token;     // [T*K] row -> token
  std::span<int32_t> slot_row;  // [T*K] (token, slot) -> row
  static Routing take(Arena& arena, int64_t tokens, int64_t experts, int64_t active);
};

// logits [T, E] fp32, bias [1, E] fp32 (empty unless rule.bias). Ties: the lower expert index wins. Fills all of r.
void route_forward(const Exec& exec, const RouterRule& rule, CMat logits, CMat bias, Routing& r);
// Hash routing (models.md G.7): the choice is given, experts [T, K] fp32 whole numbers in any order (may be r.weights);
// weights as above.
void route_given(const Exec& exec, const RouterRule& rule, CMat logits, CMat experts, Routing& r);
// d_logits [T, E] = gradient through the weights (assigned). d_weights [T, K] fp32. The choice is a constant.
void route_backward(const Exec& exec, const RouterRule& rule, CMat logits, const Routing& r, CMat d_weights,
                    Mat d_logits);

}  // namespace birkhoff::ops
