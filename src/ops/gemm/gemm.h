// Matrix products. One implementation for every instruction set: B is packed into panels, A is read as it is.
//
// Promises, each with a test on every instruction set:
//   - an output element is one sum over K in a fixed order: it does not depend on how many rows or columns share the
//     call, on where its row stands, or on the number of threads;
//   - bf16 inputs, fp32 sums, one rounding at the end.
#pragma once
#include <cstdint>
#include <span>

#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

enum class Store { assign, accumulate };

// c [M, N] = a [M, K] b, or += with Store::accumulate. b bf16: a must be bf16. b fp32: a is fp32 or bf16 (widened).
// c is fp32 or bf16 (bf16 with assign only). M, N, K may be 0 (K = 0 assigns zeros). c must not overlap a.
void gemm(const Exec& exec, CMat a, const Packed& b, Mat c, Store store = Store::assign);

// The same on the calling thread alone, for use inside a task.
void gemm_serial(CMat a, const Packed& b, Mat c, Store store = Store::assign);

// The same for groups of consecutive rows: rows offsets[g] .. offsets[g+1]-1 of a and c use b[g]. offsets has
// b.size()+1 ascending entries from 0 to at most a.rows; all b have one shape and type. Rows past offsets.back() are
// not written.
void grouped_gemm(const Exec& exec, CMat a, std::span<const int32_t> offsets, std::span<const Packed> b, Mat c,
                  Store store = Store::assign);

}  // namespace birkhoff::ops
