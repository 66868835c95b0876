// One kernel source, one object per instruction set. A family declares a struct of function pointers and
//   BK_DECLARE_KERNELS(NormKernels, norm_kernels)
// in its header; `<family>.isa.cc` is compiled once per level with BK_ISA naming the namespace and defines
//   namespace birkhoff::kernels::BK_ISA { const NormKernels norm_kernels = {...}; }
// Callers write kernels::norm_kernels().f(...). Kernel sources include no standard header that has inline functions: an
// inline function compiled for AVX-512 must never be the copy the linker keeps for everyone.
#pragma once
#include "core/cpu.h"

#define BK_DECLARE_KERNELS(Table, name)               \
  namespace scalar {                                  \
  extern const Table name;                            \
  }                                                   \
  namespace avx2 {                                    \
  extern const Table name;                            \
  }                                                   \
  namespace avx512 {                                  \
  extern const Table name;                            \
  }                                                   \
  namespace amx {                                     \
  extern const Table name;                            \
  }                                                   \
  inline const Table& name() {                        \
    switch (active_isa()) {                           \
      case Isa::scalar:                               \
        return scalar::name;                          \
      case Isa::avx2:                                 \
        return avx2::name;                            \
      case Isa::avx512:                               \
        return avx512::name;                          \
      default:                                        \
        return amx::name;                             \
    }                                                 \
  }
