// H_res of a site from its logits, by itself: what the passes of residual.h do for the tokens of a block.
#pragma once
#include <cstdint>

#include "core/exec.h"
#include "core/view.h"
#include "ops/residual/residual.h"

namespace birkhoff::ops {

// Sinkhorn-Knopp on logits z [T, n*n] row-major, and its exact unrolled VJP (mhc.md 8.3). v4: softmax over the last
// index, + eps, columns (sum over the first index + eps), then iters-1 times rows, columns. paper: exp, then iters
// times columns, rows; no eps. out is the stored matrix ("comb" for v4, H_res for paper).
void sinkhorn_forward(const Exec& exec, HcConvention convention, int64_t n, int iters, float eps, CMat z, Mat out);
void sinkhorn_backward(const Exec& exec, HcConvention convention, int64_t n, int iters, float eps, CMat z, CMat d_out,
                       Mat dz);

// The forms without iterations, lite and kron (formulas: kernels/residual/permutations.h): logits z [T,
// res_logits(form, n)] -> out [T, n*n] row-major, rows and columns of which sum to 1; and the VJP, dz assigned. out is
// the stored matrix, as for Sinkhorn: H_res for paper, its transpose for v4.
void mixture_forward(const Exec& exec, ResForm form, int64_t n, CMat z, Mat out);
void mixture_backward(const Exec& exec, ResForm form, int64_t n, CMat z, CMat d_out, Mat dz);

}  // namespace birkhoff::ops
