// RMSNorm over blocks of `dim` elements, `heads` of them side by side in every row. T is the storage type of x, y, dy
// and dx.
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

struct RmsNormForward {
  const void* x;  // [rows, heads * dim], x_stride elements between rows
  int64_t x_stride;
  const float* w;  // [dim]; null: all ones
  float eps;
  void* y;  // [rows, heads * dim]; may be x
  int64_t y_stride;
  float* rstd;  // [rows, heads], rstd_stride apart
  int64_t rstd_stride;
  int64_t rows, heads, dim;
};
struct RmsNormBackward {
  const void* x;
  int64_t x_stride;
  const float* w;  // null: all ones, and dw is not touched
  const float* rstd;
  int64_t rstd_stride;
  const void* dy;
  int64_t dy_stride;
  void* dx;  // assigned; may be dy
  int64_t dx_stride;
  float* dw;  // [dim], assigned: the sum over these rows and heads
  int64_t rows, heads, dim;
};

struct NormKernels {
  void (*rms_forward_f32)(const RmsNormForward&);
  void (*rms_forward_bf16)(const RmsNormForward&);
  void (*rms_backward_f32)(const RmsNormBackward&);
  void (*rms_backward_bf16)(const RmsNormBackward&);
  // out[i] += the sum of `parts` partial vectors, part p at partial + p * stride, added in order.
  void (*add_parts)(const float* partial, int64_t parts, int64_t stride, int64_t n, float* out);
};
BK_DECLARE_KERNELS(NormKernels, norm_kernels)

}  // namespace birkhoff::kernels
