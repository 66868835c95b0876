#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

// Rows of the feed-forward path. Overloads by storage: f32 or bf16.
template <class T>
struct FfnRowKernels {
  // h = w silu(g) u, with g at most limit and u within +-limit
  void (*swiglu)(const T* g, const T* u, float w, float limit, T* h, int64_t n);
  // dg, du from dh, zero where the limit cut; returns sum dh silu(g) u
  float (*swiglu_backward)(const T* g, const T* u, float w, float limit, const T* dh, T* dg, T* du, int64_t n);
  // out = sum of `count` rows given by pointers, in order, on top of out when accumulate
  void (*sum_rows)(const T* const* rows, int count, T* out, int64_t n, bool accumulate);
};

struct RoutingKernels {
  FfnRowKernels<float> f32;
  FfnRowKernels<bf16> b16;
};
BK_DECLARE_KERNELS(RoutingKernels, routing_kernels)

}  // namespace birkhoff::kernels
