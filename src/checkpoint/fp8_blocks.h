// FP8 with one fp32 factor per block, as DeepSeek-V3's files store linear layers (models.md E.5).
#pragma once
#include <cstdint>

#include "core/view.h"

namespace birkhoff::checkpoint {

// The e4m3 code nearest to x (ties to even); beyond 448 the largest of its sign; NaN stays NaN.
uint8_t to_e4m3(float x);

// rows [R, C] fp32, R at most block_rows -> codes [R, C] and one factor per block_cols columns: largest magnitude / 448
// (1 for a block of zeros), so that code * factor is the value.
void quantise_block_rows(CMat rows, int64_t block_cols, uint8_t* codes, float* factors);

}  // namespace birkhoff::checkpoint
