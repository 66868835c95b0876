#include "kernels/rows/layer_norm.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// Sum over i < n of f(i, lanes); lanes past the end must come out as 0. The order depends on n alone.
template <class F>
float sum_lanes(int64_t n, F&& f) {
  V sum = set1(0.f);
  for_lanes(n, [&](int64_t i, int m) { sum = sum + f(i, m); });
  return reduce_add(sum);
}

// x - mean, and 0 past the end of a row.
template <class T>
inline V centred(const T* x, float mean, int m) {
  if (m == kLanes) return load(x) - set1(mean);
  float t[kLanes] = {};
  store(t, load_n(x, m) - set1(mean));
  for (int i = m; i < kLanes; ++i) t[i] = 0.f;
  return load(t);
}

template <class T>
void forward(const LayerNormForward& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    T* y = static_cast<T*>(a.y) + r * a.y_stride;
    const float n = static_cast<float>(a.dim),
                mean = sum_lanes(a.dim, [&](int64_t i, int m) { return load_some(x + i, m); }) / n;
    const float squares = sum_lanes(a.dim, [&](int64_t i, int m) {
      const V d = centred(x + i, mean, m);
      return d * d;
    });
    const float rstd = 1.f / __builtin_sqrtf(squares / n + a.eps);
    for_lanes(a.dim, [&](int64_t i, int m) {
      const V h = (load_some(x + i, m) - set1(mean)) * set1(rstd);
      store_some(y + i, fma(h, load_some(a.w + i, m), load_some(a.b + i, m)), m);
    });
    a.stats[2 * r] = mean;
    a.stats[2 * r + 1] = rstd;
  }
}

// With h = (x - mean) rstd and g = w dy: dx = rstd (g - mean(g) - h mean(g h)), dw = sum over rows of dy h, db of dy.
template <class T>
void backward(const LayerNormBackward& a) {
  for (int64_t k = 0; k < 2; ++k)
    for_lanes(a.dim, [&](int64_t i, int m) { store_some((k ? a.db : a.dw) + i, set1(0.f), m); });
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride;
    const T* dy = static_cast<const T*>(a.dy) + r * a.dy_stride;
    T* dx = static_cast<T*>(a.dx) + r * a.dx_stride;
    const float n = static_cast<float>(a.dim), mean = a.stats[2 * r], rstd = a.stats[2 * r + 1];
    const auto gradient = [&](int64_t i, int m) { return load_some(dy + i, m) * load_some(a.w + i, m); };
    const float sum = sum_lanes(a.dim, gradient);
    const float dot =
        sum_lanes(a.dim, [&](int64_t i, int m) { return gradient(i, m) * (centred(x + i, mean, m) * set1(rstd)); });
    for_lanes(a.dim, [&](int64_t i, int m) {
      const V h = (load_some(x + i, m) - set1(mean)) * set1(rstd), g = load_some(dy + i, m), weighted = gradient(i, m);
      store_some(a.dw + i, fma(g, h, load_some(a.dw + i, m)), m);
      store_some(a.db + i, g + load_some(a.db + i, m), m);
      store_some(dx + i, (weighted - set1(sum / n) - h * set1(dot / n)) * set1(rstd), m);
    });
  }
}

}  // namespace

const LayerNormKernels layer_norm_kernels = {forward<float>, forward<bf16>, backward<float>, backward<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
