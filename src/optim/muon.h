#pragma once
#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::optim {

// Orthogonalises g [r, c] fp32 by Newton-Schulz (models.md L: V4): g / |g|_F, eight steps with (3.4445,
// -4.7750, 2.0315), two with (2, -1.5, 0.5). out [r, c] assigned. A zero matrix stays zero.
void newton_schulz(const Exec& exec, CMat g, Mat out, Arena& scratch);
// Floating-point operations of its products: ten times 4 a^2 b + 2 a^3 for the shorter side a and the longer side b.
double newton_schulz_flops(int64_t rows, int64_t cols);

}  // namespace birkhoff::optim
