// The coefficient projection of hyper-connections: a few outputs from a very wide state, in fp32 precision. With bf16 storage the state is exact
// in bf16 and the fp32 weights are split into two bf16 parts (16 bits), so that the fast bf16 products serve. Internal to ops.
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm.h"

namespace birkhoff::ops {

class Projection {
 public:
  // fn [out, width] fp32; state: storage of the state; transposed: whether back() will be called. Packs into scratch.
  Projection(const Exec& exec, CMat fn, DType state, bool transposed, Arena& scratch);
  // Inside a task: raw [rows, out] fp32 = x [rows, width] fn^T.
  void forward(CMat x, float* raw) const;
  // Inside a task: dx [rows, width] fp32 = dq [rows, out] fn; with bf16 states dq is rounded to bf16, as dx will be.
  void back(const float* dq, int64_t rows, float* dx) const;

 private:
  int64_t out_, width_, parts_;
  Packed forward_, back_;
};

// d_fn [out, width] += dq^T x for dq [T, out] fp32, x [T, width].
void projection_weight_grad(const Exec& exec, CMat dq, CMat x, Mat d_fn, Arena& scratch);

}  // namespace birkhoff::ops
