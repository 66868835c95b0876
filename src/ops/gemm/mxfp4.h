// FP4 of safetensors files, two neighbours a byte and their factors apart, and the MXFP4 blocks of GGUF files: the same
// codes and factors in another order (models.md G.10, gguf.md 6).
#pragma once
#include <cstdint>

#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

// FP4 with a factor 2^n for every 32 of a row.
bool holds_mxfp4(const StoredTensor& t);
// The codes of 32 elements: elements 2i and 2i + 1 in byte i of `pairs`, j and j + 16 in byte j of `out`.
void pair_halves(const uint8_t* pairs, uint8_t (&out)[16]);
// out, of count times cols / 32 blocks = rows [first, first + count) of t, which holds_mxfp4 and whose rows are whole
// blocks. On the calling thread.
void mxfp4_rows(const StoredTensor& t, int64_t first, int64_t count, uint8_t* out);

}  // namespace birkhoff::ops
