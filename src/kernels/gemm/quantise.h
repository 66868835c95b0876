// Numbers to blocks of GGUF files, the way back of stored.h.
#pragma once
#include <stdint.h>

#include "kernels/gemm/stored.h"

namespace birkhoff::kernels {

inline constexpr bool can_quantise(StoredType t) {
  switch (t) {
    case StoredType::f16:
    case StoredType::bf16:
    case StoredType::q4_0:
    case StoredType::q4_1:
    case StoredType::q5_0:
    case StoredType::q5_1:
    case StoredType::q8_0:
    case StoredType::mxfp4:
      return true;
    default:
      return false;
  }
}

struct QuantiseKernels {
  // out = rows [rows, cols] of `type` one after another, from rows of fp32 in_stride elements apart. The same bits at
  // every instruction set. `type` is one that can_quantise; cols is whole blocks.
  void (*rows)(StoredType type, const float* in, int64_t rows, int64_t cols, int64_t in_stride, uint8_t* out);
};
BK_DECLARE_KERNELS(QuantiseKernels, quantise_kernels)

}  // namespace birkhoff::kernels
