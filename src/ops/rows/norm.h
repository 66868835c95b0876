// RMSNorm over the last dimension, or over each head of it: y = w x / sqrt(mean(x^2) + eps), statistics and arithmetic
// in fp32 whatever the storage.
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// x [T, H D] -> y [T, H D] (same type; may be x itself), rstd [T, H] fp32 = 1/sqrt(mean(x^2)+eps), w [1, D] fp32, the
// same for every head (H = 1: the norm of the whole row). w and dw may be empty views: no weight (V4's queries,
// models.md G.3), and H is 1.
// eps may be as small as 1e-20: a zero row gives zeros, never NaN.
void rms_norm_forward(const Exec& exec, CMat x, CMat w, float eps, Mat y, Mat rstd);
// dx [T, H D] = gradient (assigned; may be dy itself), dw [1, D] fp32 += . x is the forward's input.
void rms_norm_backward(const Exec& exec, CMat x, CMat w, CMat rstd, CMat dy, Mat dx, Mat dw, Arena& scratch);

}  // namespace birkhoff::ops
