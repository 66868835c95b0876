#include "kernels/routing.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class T>
void swiglu(const T* g, const T* u, float w, T* h, int64_t n) {
  const V weight = set1(w);
  for_lanes(n, [&](int64_t i, int k) {
    const V gate = load_some(g + i, k);
    store_some(h + i, weight * (gate * sigmoid(gate)) * load_some(u + i, k), k);
  });
}

template <class T>
float swiglu_backward(const T* g, const T* u, float w, const T* dh, T* dg, T* du, int64_t n) {
  const V weight = set1(w), one = set1(1.f);
  V dot = set1(0.f);
  for_lanes(n, [&](int64_t i, int k) {
    const V gate = load_some(g + i, k), up = load_some(u + i, k), d = load_some(dh + i, k);
    const V s = sigmoid(gate), silu = gate * s;
    dot = fma(d, silu * up, dot);
    const V dw = d * weight;
    store_some(dg + i, dw * up * (s * (one + gate * (one - s))), k);
    store_some(du + i, dw * silu, k);
  });
  return reduce_add(dot);
}

template <class T>
void sum_rows(const T* const* rows, int count, T* out, int64_t n, bool accumulate) {
  for_lanes(n, [&](int64_t i, int k) {
    V sum = accumulate ? load_some(out + i, k) : set1(0.f);
    for (int r = 0; r < count; ++r) sum = sum + load_some(rows[r] + i, k);
    store_some(out + i, sum, k);
  });
}

}  // namespace

const RoutingKernels routing_kernels = {{swiglu<float>, swiglu_backward<float>, sum_rows<float>}, {swiglu<bf16>, swiglu_backward<bf16>, sum_rows<bf16>}};

}  // namespace birkhoff::kernels::BK_ISA
