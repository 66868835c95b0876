// One kernel source, one object per instruction set. A family declares a struct of function pointers and
//   BK_DECLARE_KERNELS(NormKernels, norm_kernels)
// in its header; `<family>.isa.cc` is compiled once per level with BK_ISA naming the namespace and defines
//   namespace birkhoff::kernels::BK_ISA { const NormKernels norm_kernels = {...}; }
// Callers write kernels::norm_kernels().f(...). A family whose products use AMX tiles declares itself with
// BK_DECLARE_TILE_KERNELS and stands in BIRKHOFF_TILE_KERNELS (cmake/isa.cmake): only those are compiled for amx, the others
// run their avx512 level there. Kernel sources include no standard header that has inline functions: an inline function
// compiled for AVX-512 must never be the copy the linker keeps for everyone.
#pragma once
#include "core/cpu.h"

#define BK_DECLARE_LEVEL(level, Table, name) \
  namespace level {                          \
  extern const Table name;                   \
  }

#define BK_DECLARE_UP_TO(widest, Table, name) \
  BK_DECLARE_LEVEL(scalar, Table, name)       \
  BK_DECLARE_LEVEL(avx2, Table, name)         \
  BK_DECLARE_LEVEL(avx512, Table, name)       \
  inline const Table& name() {                \
    switch (active_isa()) {                   \
      case Isa::scalar:                       \
        return scalar::name;                  \
      case Isa::avx2:                         \
        return avx2::name;                    \
      case Isa::avx512:                       \
        return avx512::name;                  \
      default:                                \
        return widest::name;                  \
    }                                         \
  }

#define BK_DECLARE_KERNELS(Table, name) BK_DECLARE_UP_TO(avx512, Table, name)

#define BK_DECLARE_TILE_KERNELS(Table, name) \
  BK_DECLARE_LEVEL(amx, Table, name)         \
  BK_DECLARE_UP_TO(amx, Table, name)
