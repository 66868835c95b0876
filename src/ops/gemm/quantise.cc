#include "ops/gemm/quantise.h"

#include "core/error.h"

namespace birkhoff::ops {

void quantise_rows(StoredType type, const float* in, int64_t rows, int64_t cols, int64_t in_stride, uint8_t* out) {
  BK_CHECK(can_quantise(type));
  BK_CHECK(rows >= 0 && cols >= 0 && cols % stored_format(type).block_elements == 0);
  BK_CHECK(rows <= 1 || in_stride >= cols);
  kernels::quantise_kernels().rows(type, in, rows, cols, in_stride, out);
}

}  // namespace birkhoff::ops
