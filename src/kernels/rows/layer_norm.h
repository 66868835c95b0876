// LayerNorm over the rows of a matrix. T is the storage type of x, y, dy and dx.
#pragma once
#include <cstdint>

#include "kernels/isa.h"

namespace birkhoff::kernels {

struct LayerNormForward {
  const void* x;  // [rows, dim]
  int64_t x_stride;
  const float *w, *b;  // [dim]
  float eps;
  void* y;  // may be x
  int64_t y_stride;
  float* stats;  // [rows][2]: mean, 1/sqrt(variance + eps)
  int64_t rows, dim;
};
struct LayerNormBackward {
  const void* x;
  int64_t x_stride;
  const float* w;
  const float* stats;
  const void* dy;
  int64_t dy_stride;
  void* dx;  // assigned; may be dy
  int64_t dx_stride;
  float *dw, *db;  // [dim] each, assigned: the sums over these rows
  int64_t rows, dim;
};

struct LayerNormKernels {
  void (*forward_f32)(const LayerNormForward&);
  void (*forward_bf16)(const LayerNormForward&);
  void (*backward_f32)(const LayerNormBackward&);
  void (*backward_bf16)(const LayerNormBackward&);
};
BK_DECLARE_KERNELS(LayerNormKernels, layer_norm_kernels)

}  // namespace birkhoff::kernels
