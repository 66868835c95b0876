// What a product reads of a weight operand that stays in the model file. Internal to ops.
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

// Panels [col, col + cols) of the stored operand b, rows [k, k + depth) of them, in the layout of Packed with `panel`
// elements between the starts of two panels. col is a multiple of 16, k of 32. On the calling thread; takes working
// memory of the worker.
void expand_panels(const Packed& b, int64_t col, int64_t cols, int64_t k, int64_t depth, void* out, int64_t panel);

// Columns [col, col + cols) of a transposed stored operand as rows of bf16 in the file, [cols, b.k], or null where they
// are of another type, scaled or not one after another.
const bf16* bf16_rows(const Packed& b, int64_t col, int64_t cols);

}  // namespace birkhoff::ops
