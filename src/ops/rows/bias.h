// A bias of every column: y = x + b, in place.
#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// x [T, D] += b [1, D] fp32, summed in fp32.
void bias_forward(const Exec& exec, CMat b, Mat x);
// db [1, D] fp32 += the sum of the rows of dx [T, D], which is the gradient on both sides of the sum.
void bias_backward(const Exec& exec, CMat dx, Mat db, Arena& scratch);

}  // namespace birkhoff::ops
