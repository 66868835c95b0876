// Matrix products. One implementation for every instruction set: B is packed into panels, A is read as it is.
//
// Promises, each with a test on every instruction set:
//   - an output element is one sum over K in a fixed order: it does not depend on how many rows or columns share the
//   call, on
//     where its row stands, or on the number of threads;
//   - bf16 inputs, fp32 sums, one rounding at the end.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

// B [k, n] of a product in the layout the kernels read: panels of 16 columns (the last padded with zeros); bf16 panels
// hold rows in pairs, padded to a multiple of 32 rows. A view: it owns nothing.
//
// Or (`stored`) a matrix of a model file from which a product makes the panels it needs, a few columns at a time: the
// same values rounded to dtype, so the same bits as from panels made in advance. `stored` must outlive the view.
struct Packed {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t k = 0, n = 0;
  const StoredMatrix* stored = nullptr;
  int64_t first_row = 0;   // of the part of `stored` that B is
  bool transposed = true;  // B is that part transposed
  // B = rows [first, first + count) of w, transposed: [w.cols, count]. Or as they are: [count, w.cols].
  static Packed transposed_rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype);
  static Packed rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype);
  static int64_t bytes(DType dtype, int64_t k, int64_t n);  // a multiple of 64
  static Packed take(Arena& arena, DType dtype, int64_t k, int64_t n);
  bool empty() const { return !data && !stored; }
};

// out = w^T for w [n, k] (fp32 or bf16): then gemm(x, out) is the linear layer x w^T.
void pack_transposed(const Exec& exec, CMat w, Packed out);
// out = w for w [k, n]: then gemm(dy, out) is dy w.
void pack(const Exec& exec, CMat w, Packed out);

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

// Weight gradient: dw [N, K] fp32 += dy^T x for dy [T, N], x [T, K] (= with Store::assign). bf16: both bf16. fp32: dy
// fp32, x fp32 or bf16. Sums over T run in a fixed order. scratch holds partial sums where an output too small to be
// cut into enough tasks has T cut as well, at places that depend on the shape only.
void gemm_weight_grad(const Exec& exec, CMat dy, CMat x, Mat dw, Arena& scratch, Store store = Store::accumulate);
// The same on the calling thread alone, for use inside a task.
void gemm_weight_grad_serial(CMat dy, CMat x, Mat dw, Store store);
// The same per group of rows: dw[g] += dy_g^T x_g. Groups of no rows leave dw[g] as it is (Store::assign: zeros); a
// dw[g] without memory is left out.
void grouped_weight_grad(const Exec& exec, CMat dy, CMat x, std::span<const int32_t> offsets, std::span<const Mat> dw,
                         Arena& scratch, Store store = Store::accumulate);

// Scratch bytes the two above take for operands of these shapes (dtype: that of dy), for callers that reserve ahead.
int64_t weight_grad_scratch_bytes(DType dtype, int64_t tokens, int64_t n, int64_t k, int64_t groups = 1);

}  // namespace birkhoff::ops
