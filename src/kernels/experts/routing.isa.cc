#include "kernels/experts/routing.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// In this operand order a NaN survives.
V at_most(V limit, V x) { return min(limit, x); }
V within(V limit, V x) { return max(set1(0.f) - limit, min(limit, x)); }

template <class T>
void swiglu(const T* g, const T* u, float w, float limit, T* h, int64_t n) {
  const V weight = set1(w), most = set1(limit);
  for_lanes(n, [&](int64_t i, int k) {
    const V gate = at_most(most, load_some(g + i, k));
    store_some(h + i, weight * (gate * sigmoid(gate)) * within(most, load_some(u + i, k)), k);
  });
}

template <class T>
float swiglu_backward(const T* g, const T* u, float w, float limit, const T* dh, T* dg, T* du, int64_t n) {
  const V weight = set1(w), one = set1(1.f), most = set1(limit), least = set1(-limit);
  V dot = set1(0.f);
  for_lanes(n, [&](int64_t i, int k) {
    const V gate_in = load_some(g + i, k), up_in = load_some(u + i, k), d = load_some(dh + i, k);
    const V gate = at_most(most, gate_in), up = within(most, up_in);
    const V s = sigmoid(gate), silu = gate * s;
    dot = fma(d, silu * up, dot);
    const V dw = d * weight;
    store_some(dg + i, unless_above(gate_in, most, dw * up * (s * (one + gate * (one - s)))), k);
    store_some(du + i, unless_above(up_in, most, unless_above(least, up_in, dw * silu)), k);
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

const RoutingKernels routing_kernels = {{swiglu<float>, swiglu_backward<float>, sum_rows<float>},
                                        {swiglu<bf16>, swiglu_backward<bf16>, sum_rows<bf16>}};

}  // namespace birkhoff::kernels::BK_ISA
