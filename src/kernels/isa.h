// One kernel source, one object per instruction set. A family declares a struct of function pointers and
//   BK_DECLARE_KERNELS(NormKernels, norm_kernels)
// in its header; `<family>.isa.cc` is compiled once per level with BK_ISA naming the namespace and defines
//   namespace birkhoff::kernels::BK_ISA { const NormKernels norm_kernels = {...}; }
// Callers write kernels::norm_kernels().f(...). A family whose products use AMX tiles declares itself with
// BK_DECLARE_TILE_KERNELS and stands in BIRKHOFF_TILE_KERNELS (cmake/isa.cmake): only those are compiled for amx, the
// others run their avx512 level there. Kernel sources include no standard header that has inline functions: an inline
// function compiled for AVX-512 must never be the copy the linker keeps for everyone.
#pragma once
#include "core/compiled_isa.h"
#include "core/cpu.h"

// BK_WITH(level, ...): the rest where kernels are compiled for the level (BIRKHOFF_WIDEST_ISA), nothing elsewhere.
#define BK_WITH(level, ...) BK_WITH_EXPANDED(BK_COMPILED_##level, __VA_ARGS__)
#define BK_WITH_EXPANDED(compiled, ...) BK_WITH_CHOSEN(compiled, __VA_ARGS__)
#define BK_WITH_CHOSEN(compiled, ...) BK_WITH_##compiled(__VA_ARGS__)
#define BK_WITH_1(...) __VA_ARGS__
#define BK_WITH_0(...)

#define BK_DECLARE_LEVEL(level, Table, name) \
  namespace level {                          \
  extern const Table name;                   \
  }
#define BK_LEVEL_CASE(level, name) \
  case Isa::level:                 \
    return level::name;

// active_isa() names no level that is not compiled; amx runs the avx512 kernels of families without tiles.
#define BK_DECLARE_UP_TO_AVX512(Table, name, amx_case)   \
  BK_DECLARE_LEVEL(scalar, Table, name)                  \
  BK_WITH(avx2, BK_DECLARE_LEVEL(avx2, Table, name))     \
  BK_WITH(avx512, BK_DECLARE_LEVEL(avx512, Table, name)) \
  inline const Table& name() {                           \
    switch (active_isa()) {                              \
      BK_WITH(avx2, BK_LEVEL_CASE(avx2, name))           \
      BK_WITH(avx512, BK_LEVEL_CASE(avx512, name))       \
      BK_WITH(amx, amx_case)                             \
      default:                                           \
        return scalar::name;                             \
    }                                                    \
  }

#define BK_DECLARE_KERNELS(Table, name) BK_DECLARE_UP_TO_AVX512(Table, name, case Isa::amx : return avx512::name;)

#define BK_DECLARE_TILE_KERNELS(Table, name)       \
  BK_WITH(amx, BK_DECLARE_LEVEL(amx, Table, name)) \
  BK_DECLARE_UP_TO_AVX512(Table, name, BK_LEVEL_CASE(amx, name))
