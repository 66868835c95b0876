// Token embedding lookup and its gradient.
#pragma once
#include <cstdint>
#include <span>

#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

// table [V, D] fp32, ids in [0, V) -> out [T, D] fp32 or bf16.
void embedding_forward(const Exec& exec, CMat table, std::span<const int32_t> ids, Mat out);
// The same from a table that stays in the model file: the rows of the ids are expanded, no others are touched.
void embedding_forward(const Exec& exec, const StoredMatrix& table, std::span<const int32_t> ids, Mat out);
// d_table [V, D] fp32 += ; rows of one id are added in token order, whatever the number of threads. A view
// without memory: the table is frozen, nothing happens.
void embedding_backward(const Exec& exec, std::span<const int32_t> ids, CMat d_out, Mat d_table);

}  // namespace birkhoff::ops
