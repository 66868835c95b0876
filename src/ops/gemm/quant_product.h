// Products with quantised weights. Internal to ops: gemm.h is the way in.
#pragma once
#include <cstdint>
#include <span>

#include "core/exec.h"
#include "core/view.h"
#include "kernels/gemm/gemm.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

// As grouped_gemm, for b that are quantised. a is fp32 or bf16, rounded to 8 bits a block of 32 once for all of b. Rows
// do not depend on each other.
void quant_products(const Exec& exec, CMat a, std::span<const int32_t> offsets, std::span<const Packed> b, Mat c,
                    kernels::GemmStore store);

}  // namespace birkhoff::ops
