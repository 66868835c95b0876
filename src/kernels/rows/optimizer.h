#pragma once
#include <cstdint>

#include "kernels/isa.h"

namespace birkhoff::kernels {

struct AdamwFactors {
  float grad_scale, decay;  // decay = 1 - lr wd
  float beta1, beta2;
  float step;            // lr / (1 - beta1^t)
  float inv_sqrt_bias2;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

struct OptimizerKernels {
  // One pass: w, m, v updated, g zeroed.
  void (*adamw)(float* w, float* g, float* m, float* v, int64_t n, const AdamwFactors& f);
  // m = mu m + s g; out = mu m + s g (Nesterov); g zeroed.
  void (*momentum)(float* m, float* g, float* out, int64_t n, float mu, float grad_scale);
  // w = w decay - rate o.
  void (*apply)(float* w, const float* o, int64_t n, float decay, float rate);
  double (*sum_squares)(const float* g, int64_t n);
  // x *= s; y = a x + b y
  void (*scale)(float* x, int64_t n, float s);
  void (*axpby)(const float* x, float* y, int64_t n, float a, float b);
};
BK_DECLARE_KERNELS(OptimizerKernels, optimizer_kernels)

}  // namespace birkhoff::kernels
