#include "kernels/rows/cross_entropy.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

float largest(const float* x, int64_t n) {
  float top = x[0];
  if (n >= 4 * kLanes) {
    V m[4] = {load(x), load(x + kLanes), load(x + 2 * kLanes), load(x + 3 * kLanes)};
    int64_t i = 4 * kLanes;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes)
      for (int j = 0; j < 4; ++j) m[j] = max(m[j], load(x + i + j * kLanes));
    top = reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
    x += i, n -= i;
  }
  for (int64_t i = 0; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// Lanes past the end hold 0 instead of e^(0 - max).
V first_lanes(V v, int n) {
  float t[kLanes];
  store(t, v);
  return load_n(t, n);
}

void row_stats(const float* x, int64_t n, float* exps, float* max_out, float* sum_out) {
  const float top = largest(x, n);
  V s[4] = {set1(0.f), set1(0.f), set1(0.f), set1(0.f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const V e = exp(load(x + i + j * kLanes) - set1(top));
      s[j] = s[j] + e;
      if (exps) store(exps + i + j * kLanes, e);
    }
  }
  for_lanes(n - i, [&](int64_t k, int m) {
    const V e = first_lanes(exp(load_some(x + i + k, m) - set1(top)), m);
    s[0] = s[0] + e;
    if (exps) store_some(exps + i + k, e, m);
  });
  *max_out = top;
  *sum_out = reduce_add((s[0] + s[1]) + (s[2] + s[3]));
}

template <class T>
void scale(const float* exps, int64_t n, float factor, void* out) {
  for_lanes(n,
            [&](int64_t i, int m) { store_some(static_cast<T*>(out) + i, load_some(exps + i, m) * set1(factor), m); });
}

}  // namespace

const CrossEntropyKernels cross_entropy_kernels = {row_stats, scale<float>, scale<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
