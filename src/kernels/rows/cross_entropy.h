// Rows of logits: log-sum-exp, and the gradient of the cross-entropy.
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

struct CrossEntropyKernels {
  // The largest of x[0 .. n) and sum_i e^(x_i - max); exps, when not null, receives the terms. n > 0.
  void (*row_stats)(const float* x, int64_t n, float* exps, float* max, float* sum);
  // out[i] = exps[i] * factor
  void (*scale_f32)(const float* exps, int64_t n, float factor, void* out);
  void (*scale_bf16)(const float* exps, int64_t n, float factor, void* out);
};
BK_DECLARE_KERNELS(CrossEntropyKernels, cross_entropy_kernels)

}  // namespace birkhoff::kernels
