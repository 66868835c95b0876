// Gradients of weights: products that sum over tokens.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/gemm.h"

namespace birkhoff::ops {

// Weight gradient: dw [N, K] fp32 += dy^T x for dy [T, N], x [T, K] (= with Store::assign). bf16: both bf16. fp32: dy
// fp32, x fp32 or bf16. Sums over T run in a fixed order. scratch holds partial sums where an output too small to be
// cut into enough tasks has T cut as well, at places that depend on the shape only.
void gemm_weight_grad(const Exec& exec, CMat dy, CMat x, Mat dw, Arena& scratch, Store store = Store::accumulate);
// The same on the calling thread alone, for use inside a task.
void gemm_weight_grad_serial(CMat dy, CMat x, Mat dw, Store store);
// The same per group of rows: dw[g] += dy_g^T x_g. Groups of no rows leave dw[g] as it is (Store::assign: zeros); a
// dw[g] without memory is left out.
void grouped_weight_grad(const Exec& exec, CMat dy, CMat x, std::span<const int32_t> offsets, std::span<const Mat> dw,
                         Arena& scratch, Store store = Store::accumulate);

// Scratch bytes the two above take for operands of these shapes (dtype: that of dy), for callers that reserve ahead.
int64_t weight_grad_scratch_bytes(DType dtype, int64_t tokens, int64_t n, int64_t k, int64_t groups = 1);

}  // namespace birkhoff::ops
