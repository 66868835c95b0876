// Learning rate over a run.
#pragma once
#include <cstdint>

namespace birkhoff::optim {

struct Schedule {
  //   constant  lr
  //   cosine    lr until hold_steps (at least the warm-up), then half a cosine to min_lr at total_steps, then min_lr
  //   step      lr, times step_factor1 from step_share1 of total_steps on, times step_factor2 from step_share2 on
  //   wsd       warm-up, stable, then linear decay to min_lr over the last decay_share of total_steps
  enum class Kind { constant, cosine, step, wsd } kind = Kind::constant;
  double lr = 1e-3, min_lr = 0;
  int64_t warmup_steps = 0, total_steps = 1;
  int64_t hold_steps = 0;
  double step_share1 = 0.8, step_share2 = 0.9, step_factor1 = 0.316, step_factor2 = 0.1;
  double decay_share = 0.2;
};

// The rate used for the step after `steps_taken` steps. Warm-up: lr (steps_taken + 1) / warmup_steps.
double learning_rate(const Schedule& s, int64_t steps_taken);

// Sequences of the step after `steps_taken` while the batch grows linearly to batch_size over ramp_steps: batch_size
// (steps_taken + 1) / ramp_steps, rounded down, at least one; batch_size after.
int64_t ramped_batch(int64_t batch_size, int64_t ramp_steps, int64_t steps_taken);

}  // namespace birkhoff::optim
