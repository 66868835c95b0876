// Rotation of channel pairs, in place. cos and sin are one row of dim/2 each per position.
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

struct RopeRows {
  const float *cos, *sin;  // [positions, dim/2]
  const int32_t* pos;      // [rows]
  void* x;                 // first rotated channel of the first row
  int64_t stride;          // elements between rows
  int64_t rows, dim, heads, head_stride;
  float sign;  // +1, or -1 for the inverse
};

struct RopeKernels {
  void (*interleaved_f32)(const RopeRows&);
  void (*interleaved_bf16)(const RopeRows&);
  void (*half_split_f32)(const RopeRows&);
  void (*half_split_bf16)(const RopeRows&);
};
BK_DECLARE_KERNELS(RopeKernels, rope_kernels)

}  // namespace birkhoff::kernels
