// The weight operand of a product: packed into panels in advance, or a matrix of a model file that is expanded into
// panels where they are used.
#pragma once
#include <cstdint>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/quant_matrix.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::ops {

// B [k, n] of a product in the layout the kernels read: panels of 16 columns (the last padded with zeros); bf16 panels
// hold rows in pairs, padded to a multiple of 32 rows. A view: it owns nothing.
//
// Or (`stored`) a matrix of a model file from which a product makes the panels it needs, a few columns at a time: the
// same values rounded to dtype, so the same bits as from panels made in advance. `stored` must outlive the view.
//
// Or (`quant`) weights of 4 or 8 bits: activations are rounded to 8 bits as well and dtype means nothing. `quant` must
// outlive the view.
struct Packed {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t k = 0, n = 0;
  const StoredMatrix* stored = nullptr;
  int64_t first_row = 0;   // of the part of `stored` that B is
  bool transposed = true;  // B is that part transposed
  const QuantMatrix* quant = nullptr;
  // B = rows [first, first + count) of w, transposed: [w.cols, count]. Or as they are: [count, w.cols].
  static Packed transposed_rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype);
  static Packed rows(const StoredMatrix& w, int64_t first, int64_t count, DType dtype);
  // B = w transposed: [w.cols, w.rows].
  static Packed of(const QuantMatrix& w, DType dtype);
  static int64_t bytes(DType dtype, int64_t k, int64_t n);  // a multiple of 64
  static Packed take(Arena& arena, DType dtype, int64_t k, int64_t n);
  bool empty() const { return !data && !stored && !quant; }
};

// out = w^T for w [n, k] (fp32 or bf16): then gemm(x, out) is the linear layer x w^T.
void pack_transposed(const Exec& exec, CMat w, Packed out);
// out = w for w [k, n]: then gemm(dy, out) is dy w.
void pack(const Exec& exec, CMat w, Packed out);

}  // namespace birkhoff::ops
