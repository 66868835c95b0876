// LayerNorm over the last dimension (Ba et al. 2016): y = w (x - mean) / sqrt(variance + eps) + b, statistics and
// arithmetic in fp32 whatever the storage; the variance is that of the row itself (divided by its length).
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// x [T, D] -> y [T, D] (same type; may be x itself), stats [T, 2] fp32, contiguous: mean and 1/sqrt(variance + eps). w,
// b [1, D] fp32.
void layer_norm_forward(const Exec& exec, CMat x, CMat w, CMat b, float eps, Mat y, Mat stats);
struct LayerNormGradients {
  Mat dx, dw, db;  // [T, D], assigned, may be dy itself; [1, D] fp32, +=
};
// x is the forward's input.
void layer_norm_backward(const Exec& exec, CMat x, CMat w, CMat stats, CMat dy, const LayerNormGradients& d,
                         Arena& scratch);

}  // namespace birkhoff::ops
