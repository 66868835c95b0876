// Low-rank additions to a linear layer (LoRA, Hu et al. 2021): y += scale (x A^T) B^T, with A [r, in] and B [out, r].
// fp32 arithmetic whatever the type of x and y: the added products are a few per cent of the layer's, and PEFT computes
// them so as well.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

// The fp32 packed copies that the products read. The second pair is for backward and empty without one.
struct LowRank {
  Packed a_t, b_t;  // A^T [in, r], B^T [r, out]
  Packed a, b;      // A [r, in], B [out, r]
  float scale = 1.f;

  static LowRank take(Arena& arena, int64_t in, int64_t rank, int64_t out, bool with_backward);
  // Packs a [r, in] and b [out, r], fp32.
  void refresh(const Exec& exec, CMat a_master, CMat b_master) const;
};

// y [T, out] += scale (x a^T) b^T for groups of consecutive rows as in grouped_gemm: rows offsets[g] .. offsets[g+1]-1
// use l[g]. All l have one shape. x and y are fp32 or bf16; a row's result does not depend on its neighbours.
void low_rank_forward(const Exec& exec, CMat x, std::span<const int32_t> offsets, std::span<const LowRank> l, Mat y);

// All are added to.
struct LowRankGradients {
  Mat dx;                         // [T, in] += scale (dy b) a; left out when it is an empty view
  std::span<const Mat> d_a, d_b;  // of every group: [r, in] += scale (dy b)^T x, [out, r] += scale dy^T (x a^T)
};
void low_rank_backward(const Exec& exec, CMat x, CMat dy, std::span<const int32_t> offsets, std::span<const LowRank> l,
                       const LowRankGradients& d, Arena& scratch);

}  // namespace birkhoff::ops
