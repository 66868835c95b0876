#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace birkhoff::optim {

double learning_rate(const Schedule& s, int64_t i) {
  if (i < s.warmup_steps) return s.lr * static_cast<double>(i + 1) / static_cast<double>(s.warmup_steps);
  const auto at = static_cast<double>(i), total = static_cast<double>(s.total_steps);
  switch (s.kind) {
    case Schedule::Kind::constant:
      return s.lr;
    case Schedule::Kind::cosine: {
      const auto start = static_cast<double>(std::max(s.hold_steps, s.warmup_steps));
      if (at <= start) return s.lr;
      if (at >= total) return s.min_lr;
      return s.min_lr + 0.5 * (s.lr - s.min_lr) * (1 + std::cos(std::numbers::pi * (at - start) / (total - start)));
    }
    case Schedule::Kind::step:
      return s.lr * (at >= s.step_share2 * total ? s.step_factor2 : at >= s.step_share1 * total ? s.step_factor1 : 1.0);
    case Schedule::Kind::wsd: {
      const double start = total * (1 - s.decay_share);
      if (at < start) return s.lr;
      if (at >= total) return s.min_lr;
      return s.lr + (s.min_lr - s.lr) * (at - start) / (total - start);
    }
  }
  return s.lr;
}

int64_t ramped_batch(int64_t batch_size, int64_t ramp_steps, int64_t steps_taken) {
  if (steps_taken >= ramp_steps) return batch_size;
  return std::max<int64_t>(1, batch_size * (steps_taken + 1) / ramp_steps);
}

}  // namespace birkhoff::optim
