// AdamW and Muon over the contiguous fp32 blocks of a model; knows names and shapes, no layers.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "core/arena.h"
#include "core/exec.h"

namespace birkhoff::optim {

// One tensor: its weights, and where its gradient and moments lie in their blocks.
struct Parameter {
  std::string name;
  float* weight = nullptr;
  int64_t offset = 0, rows = 0, cols = 0;
  bool decay = true;  // weight decay applies
  bool muon = false;  // Muon instead of AdamW
};

// One layout; `size` floats of gradients, moments as far as parameters have any.
struct ParameterBlocks {
  float *grad = nullptr, *moment1 = nullptr, *moment2 = nullptr;
  int64_t size = 0;
};

struct OptimizerOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double momentum = 0.95;  // Muon
};

// sqrt(sum g^2) in double, fixed chunks combined in order; NaN and infinity show.
double global_norm(const Exec& exec, const float* grad, int64_t n);
// min(1, limit / (norm + 1e-6)).
double clip_factor(double norm, double limit);

// Step number `step` (1 for the first) of every parameter on grad * grad_scale; gradients are zero afterwards, also
// those outside `parameters`. AdamW (Loshchilov and Hutter 2019): w *= 1 - lr wd, bias-corrected moments, eps outside
// the root. Muon (models.md L): M = momentum M + G; O = NS(momentum M + G) 0.18 sqrt(max(rows, cols)); w = w (1 - lr
// wd) - lr O; M lives in moment1.
void optimizer_step(const Exec& exec, std::span<const Parameter> parameters, const ParameterBlocks& blocks,
                    const OptimizerOptions& options, int64_t step, double grad_scale, Arena& scratch);

}  // namespace birkhoff::optim
