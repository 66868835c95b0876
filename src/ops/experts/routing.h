// Expert choice, its gradient, load balancing losses, and the movement of rows between tokens and experts.
// Spec: models.md B, C.2, C.3, D.5, D.6, E.2, E.3; scores, weights and losses are fp32.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

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

// x [T, D] -> rows [T*K, D] grouped by expert (a gather).
void dispatch_forward(const Exec& exec, const Routing& r, CMat x, Mat rows);
// dx [T, D] = sum over a token's K rows, in slot order; += when accumulate.
void dispatch_backward(const Exec& exec, const Routing& r, CMat d_rows, Mat dx, bool accumulate);
// y [T, D] = sum over a token's K rows in slot order (rows already carry their weights); += when accumulate.
void combine_forward(const Exec& exec, const Routing& r, CMat rows, Mat y, bool accumulate);
// d_rows [T*K, D] = dy of each row's token (a gather).
void combine_backward(const Exec& exec, const Routing& r, CMat dy, Mat d_rows);
// (token, slot) matrix [T, K] <-> one value per dispatched row [T*K, 1], fp32.
void slots_to_rows(const Exec& exec, const Routing& r, CMat slots, Mat rows);
void rows_to_slots(const Exec& exec, const Routing& r, CMat rows, Mat slots);

// Balance losses. Selection counts are constants; gradients flow through the scores. Several may be on at once.
struct BalanceCoefficients {
  double expert = 0;         // C.3 expert-level, all tokens as one batch
  double device = 0;         // C.3 device-level over `devices` contiguous groups
  double communication = 0;  // D.6; devices and rule.active_groups (or devices_per_token) = M
  double sequence = 0;  // V3/V4: affinities normalised per token, per sequence, averaged. softmax scoring: V2's seq_aux
  double mixtral =
      0;  // E sum_e f_e P_e over the tokens of all layers together, as transformers' load_balancing_loss_func
  int64_t devices = 1, devices_per_token = 1;
  bool any() const { return expert != 0 || device != 0 || communication != 0 || sequence != 0 || mixtral != 0; }
};
// The losses of one pass over all layers with experts.
struct BalanceLoss {
  float scale = 1.f;            // of their gradient
  double sum = 0;               // takes the losses, unscaled
  std::vector<int64_t> chosen;  // [E] tokens of each expert in all layers together, and all those layers' tokens: of
  int64_t tokens = 0;           // the Mixtral loss alone; pool_choices
};
// Adds the choices of a layer to loss.chosen and loss.tokens: of every layer, before the first balance_losses.
void pool_choices(const Routing& r, BalanceLoss& loss);
// Adds one layer's share of the losses that are on to loss.sum and to d_logits [T, E] (+=) loss.scale times their
// gradient. sequence_start: first row of every sequence, ascending, sequence_start[0] == 0.
void balance_losses(const Exec& exec, const RouterRule& rule, const BalanceCoefficients& c, CMat logits,
                    const Routing& r, std::span<const int32_t> sequence_start, BalanceLoss& loss, Mat d_logits,
                    Arena& scratch);

// Loss-free balancing (models.md E.3): bias[e] += speed * sign(mean load - load[e]); equal load leaves it.
void update_router_bias(std::span<const int64_t> load, double speed, Mat bias);
// max_e load / mean load - 1; 0 when there is no load.
double max_violation(std::span<const int64_t> load);

}  // namespace birkhoff::ops
