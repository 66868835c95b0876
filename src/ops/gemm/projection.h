// The coefficient projection of hyper-connections: a few outputs from a very wide state, in fp32 precision. Where the
// processor multiplies bf16 and the state is stored in it, the fp32 weights are split into two bf16 parts (16 bits), so
// that the fast products serve; elsewhere they are used whole. The way back uses weights of the state's type, as every
// other linear layer does. Internal to ops.
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

class Projection {
 public:
  // fn [out, width] fp32; state: storage of the state; transposed: whether back() will be called. Packs into scratch.
  Projection(const Exec& exec, CMat fn, DType state, bool transposed, Arena& scratch);
  // Inside a task: raw [rows, out] fp32 = x [rows, width] fn^T.
  void forward(CMat x, float* raw) const;
  // Inside a task: dx [rows, width] = dq [rows, out] fn, all of the states' type.
  void back(CMat dq, Mat dx) const;

 private:
  int64_t out_, width_, parts_;
  Packed forward_, back_;
};

}  // namespace birkhoff::ops
