// Numbers to the block formats of GGUF files (docs/numerics.md).
#pragma once
#include <cstdint>

#include "kernels/gemm/quantise.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

using kernels::can_quantise;

// out, of rows times StoredTensor::row_bytes = rows [rows, cols] of fp32 in_stride elements apart in `type`, which is
// one of f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, mxfp4. cols is whole blocks. On the calling thread.
//
// A block with a NaN or an infinity becomes a block whose scale is NaN, all of whose elements are read as NaN; f16 and
// bf16 keep both. A finite number beyond a format's reach becomes its largest (f16 and bf16: an infinity).
void quantise_rows(StoredType type, const float* in, int64_t rows, int64_t cols, int64_t in_stride, uint8_t* out);

}  // namespace birkhoff::ops
