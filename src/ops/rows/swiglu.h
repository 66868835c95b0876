// The SwiGLU gate (Shazeer 2020): h = silu(g) * u on the two halves of one row.
#pragma once
#include <limits>

#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

inline constexpr float kNoLimit = std::numeric_limits<float>::infinity();

// limit: g = min(g, limit) and u = clamp(u, -limit, limit) before the gate (V4, models.md G.7).
// gu [T, 2F] (gate | up) -> h [T, F]. row_weight [T, 1] fp32 multiplies the row when not empty (a routed expert's
// combination weight, applied here so that the down projection already produces weighted outputs).
void swiglu_forward(const Exec& exec, CMat gu, CMat row_weight, Mat h, float limit = kNoLimit);
// dgu [T, 2F] assigned (may be gu itself). With row_weight, d_row_weight [T, 1] fp32 is assigned: sum_f dh silu(g) u.
// Beyond the limit the gradient is zero.
void swiglu_backward(const Exec& exec, CMat gu, CMat row_weight, CMat dh, Mat dgu, Mat d_row_weight,
                     float limit = kNoLimit);

}  // namespace birkhoff::ops
