// Row movements and sums that are no formula of their own.
#pragma once
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// to [R, C] = from [R, C], converting the type where they differ.
void copy(const Exec& exec, CMat from, Mat to);
// to [R, C] += from [R, C]; each of fp32 or bf16, summed in fp32.
void add(const Exec& exec, CMat from, Mat to);
// total (contiguous fp32) += the first total.size() columns of every row of parts, in the order of the rows.
void add_parts(const Exec& exec, CMat parts, Mat total);
// m *= factor, fp32.
void scale(const Exec& exec, float factor, Mat m);
// All bytes zero.
void zero(const Exec& exec, Mat m);

}  // namespace birkhoff::ops
