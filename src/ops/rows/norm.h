// RMSNorm over the last dimension: y = w x / sqrt(mean(x^2) + eps), statistics and arithmetic in fp32 whatever the
// storage.
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// x [T, D] -> y [T, D] (same type; may be x itself), rstd [T, 1] fp32 = 1/sqrt(mean(x^2)+eps), w [1, D] fp32.
// w and dw may be empty views: no weight (V4's queries, models.md G.3).
// eps may be as small as 1e-20: a zero row gives zeros, never NaN.
void rms_norm_forward(const Exec& exec, CMat x, CMat w, float eps, Mat y, Mat rstd);
// dx [T, D] = gradient (assigned; may be dy itself), dw [1, D] fp32 += . x is the forward's input.
void rms_norm_backward(const Exec& exec, CMat x, CMat w, CMat rstd, CMat dy, Mat dx, Mat dw, Arena& scratch);

}  // namespace birkhoff::ops
