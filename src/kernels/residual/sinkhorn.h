// Coefficients of hyper-connections for 16 tokens at a time, structure of arrays: element i of token t stands at [i *
// 16 + t].
#pragma once
#include <cstdint>

#include "kernels/isa.h"

namespace birkhoff::kernels {

inline constexpr int kSoaTokens = 16;

struct SinkhornKernels {
  // z [n*n][16] row-major matrices -> s [n*n][16]. v4: softmax over the last index, + eps, then columns and iters-1
  // times rows, columns with eps in every denominator. Otherwise: exp, iters times columns, rows, no eps
  // (mhc.md 1.2, 3.3). history: floats for (2 iters) * n * 16 denominators, or null when no backward follows.
  void (*forward)(const float* z, float* s, int n, int iters, float eps, bool v4, float* history);
  // dz [n*n][16] from ds, replaying z. history as above; work: 2 * n*n * 16 floats. Exact unrolled VJP (mhc.md 8.3).
  void (*backward)(const float* z, const float* ds, float* dz, int n, int iters, float eps, bool v4, float* history,
                   float* work);
  // y = factor sigmoid(scale q + base) + eps over one row of 16; its derivative d(scale q + base) from dy.
  void (*sigmoid)(const float* q, float scale, float base, float factor, float eps, float* y);
  void (*sigmoid_backward)(const float* q, float scale, float base, float factor, const float* dy, float* dz);
  // y = scale tanh(q) + base; dq from dy, and dt = dy tanh(q) whose sum is the scale's gradient.
  void (*tanh)(const float* q, float scale, float base, float* y);
  void (*tanh_backward)(const float* q, float scale, const float* dy, float* dq, float* dt);
};
BK_DECLARE_KERNELS(SinkhornKernels, sinkhorn_kernels)

}  // namespace birkhoff::kernels
