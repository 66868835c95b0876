// The shapes of the AMX tile registers of a thread, as ldtilecfg reads them.
#pragma once
#include "kernels/vec.h"

#if defined(BK_ISA_amx)
namespace birkhoff::kernels::BK_ISA {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The intrinsic of GCC 12 tells the compiler of the first 8 bytes alone, so it may leave out the stores of the others.
inline void load_tile_config(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }

}  // namespace birkhoff::kernels::BK_ISA
#endif
