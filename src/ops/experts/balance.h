// What keeps experts equally loaded: losses and the movement of a bias. Spec: models.md C.3, D.6, E.3; losses are fp32.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/experts/routing.h"

namespace birkhoff::ops {

// Balance losses. Selection counts are constants; gradients flow through the scores. Several may be on at once.
struct BalanceCoefficients {
  double expert = 0;         // C.3 expert-level, all tokens as one batch
  double device = 0;         // C.3 device-level over `devices` contiguous groups
  double communication = 0;  // D.6; devices and rule.active_groups (or devices_per_token) = M
  double sequence = 0;  // V3/V4: affinities normalised per token, per sequence, averaged. softmax scoring: V2's seq_aux
  // E sum_e f_e P_e over the tokens of all layers together, as transformers' load_balancing_loss_func.
  double mixtral = 0;
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
// The tokens of one layer, as its router saw and placed them.
struct RoutedTokens {
  CMat logits;  // [T, E] fp32
  const Routing& routing;
  std::span<const int32_t> sequence_start;  // first row of every sequence, ascending, sequence_start[0] == 0
};
// Adds one layer's share of the losses that are on to loss.sum and to d_logits [T, E] (+=) loss.scale times their
// gradient.
void balance_losses(const Exec& exec, const RouterRule& rule, const BalanceCoefficients& c, const RoutedTokens& tokens,
                    BalanceLoss& loss, Mat d_logits, Arena& scratch);

// Loss-free balancing (models.md E.3): bias[e] += speed * sign(mean load - load[e]); equal load leaves it.
void update_router_bias(std::span<const int64_t> load, double speed, Mat bias);
// max_e load / mean load - 1; 0 when there is no load.
double max_violation(std::span<const int64_t> load);

}  // namespace birkhoff::ops
