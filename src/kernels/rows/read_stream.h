#pragma once
#include <cstdint>

#include "kernels/isa.h"

namespace birkhoff::kernels {

struct ReadStreamKernels {
  // Sum of n floats in eight independent partial sums of the widest vectors: reads memory as fast as one thread can.
  float (*sum)(const float* p, int64_t n);
};
BK_DECLARE_KERNELS(ReadStreamKernels, read_stream_kernels)

}  // namespace birkhoff::kernels
