#include "kernels/rows/optimizer.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

void adamw(float* w, float* g, float* m, float* v, int64_t n, const AdamwFactors& f) {
  const V b1 = set1(f.beta1), b2 = set1(f.beta2), c1 = set1(1.f - f.beta1), c2 = set1(1.f - f.beta2);
  const V scale = set1(f.grad_scale), decay = set1(f.decay), step = set1(f.step), root = set1(f.inv_sqrt_bias2),
          eps = set1(f.eps);
  for_lanes(n, [&](int64_t i, int k) {
    const V grad = load_some(g + i, k) * scale;
    const V mm = fma(b1, load_some(m + i, k), c1 * grad);
    const V vv = fma(b2, load_some(v + i, k), c2 * grad * grad);
    const V denominator = fma(sqrt(vv), root, eps);
    store_some(w + i, load_some(w + i, k) * decay - step * mm / denominator, k);
    store_some(m + i, mm, k);
    store_some(v + i, vv, k);
    store_some(g + i, set1(0.f), k);
  });
}

void momentum(float* m, float* g, float* out, int64_t n, float mu, float grad_scale) {
  const V vmu = set1(mu), s = set1(grad_scale);
  for_lanes(n, [&](int64_t i, int k) {
    const V grad = load_some(g + i, k) * s;
    const V mm = fma(vmu, load_some(m + i, k), grad);
    store_some(m + i, mm, k);
    store_some(out + i, fma(vmu, mm, grad), k);
    store_some(g + i, set1(0.f), k);
  });
}

void apply(float* w, const float* o, int64_t n, float decay, float rate) {
  const V d = set1(decay), r = set1(rate);
  for_lanes(n, [&](int64_t i, int k) { store_some(w + i, load_some(w + i, k) * d - r * load_some(o + i, k), k); });
}

// fp32 lanes over short runs, runs added in double.
double sum_squares(const float* g, int64_t n) {
  constexpr int64_t kRun = 1024;
  double total = 0;
  for (int64_t start = 0; start < n; start += kRun) {
    V acc = set1(0.f);
    const int64_t count = n - start < kRun ? n - start : kRun;
    for_lanes(count, [&](int64_t i, int k) {
      const V x = load_some(g + start + i, k);
      acc = fma(x, x, acc);
    });
    total += reduce_add(acc);
  }
  return total;
}

void scale(float* x, int64_t n, float s) {
  const V v = set1(s);
  for_lanes(n, [&](int64_t i, int k) { store_some(x + i, load_some(x + i, k) * v, k); });
}

void axpby(const float* x, float* y, int64_t n, float a, float b) {
  const V va = set1(a), vb = set1(b);
  for_lanes(n, [&](int64_t i, int k) { store_some(y + i, fma(va, load_some(x + i, k), vb * load_some(y + i, k)), k); });
}

}  // namespace

const OptimizerKernels optimizer_kernels = {adamw, momentum, apply, sum_squares, scale, axpby};

}  // namespace birkhoff::kernels::BK_ISA
