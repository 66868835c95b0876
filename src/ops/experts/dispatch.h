// The movement of rows between tokens and experts.
#pragma once
#include "core/exec.h"
#include "core/view.h"
#include "ops/experts/routing.h"

namespace birkhoff::ops {

// x [T, D] -> rows [T*K, D] grouped by expert (a gather).
void dispatch_forward(const Exec& exec, const Routing& r, CMat x, Mat rows);
// dx [T, D] = sum over a token's K rows, in slot order; += when accumulate.
void dispatch_backward(const Exec& exec, const Routing& r, CMat d_rows, Mat dx, bool accumulate);
// y [T, D] = sum over a token's K rows in slot order (rows already carry their weights); += when accumulate.
void combine_forward(const Exec& exec, const Routing& r, CMat rows, Mat y, bool accumulate);
// d_rows [T*K, D] = dy of each row's token (a gather).
void combine_backward(const Exec& exec, const Routing& r, CMat dy, Mat d_rows);
// (token, slot) matrix [T, K] <-> one value per dispatched row [T*K, 1], fp32.
void slots_to_rows(const Exec& exec, const Routing& r, CMat slots, Mat rows);
void rows_to_slots(const Exec& exec, const Routing& r, CMat rows, Mat slots);

}  // namespace birkhoff::ops
