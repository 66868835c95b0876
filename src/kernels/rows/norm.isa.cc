#include "kernels/rows/norm.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// Sum over i < n of f(i, lanes), in four interleaved chains: the order depends on n alone.
template <class F>
float sum_lanes(int64_t n, F&& f) {
  V s0 = set1(0.f), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = f(i, kLanes, s0);
    s1 = f(i + kLanes, kLanes, s1);
    s2 = f(i + 2 * kLanes, kLanes, s2);
    s3 = f(i + 3 * kLanes, kLanes, s3);
  }
  for (; i < n; i += kLanes) s0 = f(i, n - i < kLanes ? static_cast<int>(n - i) : kLanes, s0);
  return reduce_add((s0 + s1) + (s2 + s3));
}

V weight(const float* w, int64_t i, int n) { return w ? load_some(w + i, n) : set1(1.f); }

// f(row, head, elements in front of the block in its row) for every block in order.
template <class F>
void for_blocks(int64_t rows, int64_t heads, int64_t dim, F&& f) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t h = 0; h < heads; ++h) f(r, h, h * dim);
}

template <class T>
void rms_forward(const RmsNormForward& a) {
  for_blocks(a.rows, a.heads, a.dim, [&](int64_t r, int64_t h, int64_t at) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride + at;
    T* y = static_cast<T*>(a.y) + r * a.y_stride + at;
    const float squares = sum_lanes(a.dim, [&](int64_t i, int n, V s) {
      const V v = load_some(x + i, n);
      return fma(v, v, s);
    });
    // The root of a float near 1e-20 and its reciprocal are normal numbers, so a zero row only multiplies zeros.
    const float rstd = 1.f / __builtin_sqrtf(squares / static_cast<float>(a.dim) + a.eps);
    for_lanes(a.dim,
              [&](int64_t i, int n) { store_some(y + i, load_some(x + i, n) * set1(rstd) * weight(a.w, i, n), n); });
    a.rstd[r * a.rstd_stride + h] = rstd;
  });
}

// With h = x rstd: dx = rstd (w dy - h mean(w dy h)), dw = sum over rows of dy h.
template <class T>
void rms_backward(const RmsNormBackward& a) {
  if (a.w) for_lanes(a.dim, [&](int64_t i, int n) { store_some(a.dw + i, set1(0.f), n); });
  for_blocks(a.rows, a.heads, a.dim, [&](int64_t r, int64_t head, int64_t at) {
    const T* x = static_cast<const T*>(a.x) + r * a.x_stride + at;
    const T* dy = static_cast<const T*>(a.dy) + r * a.dy_stride + at;
    T* dx = static_cast<T*>(a.dx) + r * a.dx_stride + at;
    const float rstd = a.rstd[r * a.rstd_stride + head];
    const float dot = sum_lanes(a.dim, [&](int64_t i, int n, V s) {
      const V h = load_some(x + i, n) * set1(rstd);
      return fma(load_some(dy + i, n) * weight(a.w, i, n), h, s);
    });
    const V mean = set1(-dot / static_cast<float>(a.dim));
    for_lanes(a.dim, [&](int64_t i, int n) {
      const V h = load_some(x + i, n) * set1(rstd);
      const V g = load_some(dy + i, n);
      if (a.w) store_some(a.dw + i, fma(g, h, load_some(a.dw + i, n)), n);
      store_some(dx + i, fma(h, mean, g * weight(a.w, i, n)) * set1(rstd), n);
    });
  });
}

void add_parts(const float* partial, int64_t parts, int64_t stride, int64_t n, float* out) {
  for_lanes(n, [&](int64_t i, int m) {
    V s = set1(0.f);
    for (int64_t p = 0; p < parts; ++p) s = s + load_some(partial + p * stride + i, m);
    store_some(out + i, load_some(out + i, m) + s, m);
  });
}

}  // namespace

const NormKernels norm_kernels = {rms_forward<float>, rms_forward<bf16>, rms_backward<float>, rms_backward<bf16>,
                                  add_parts};

}  // namespace birkhoff::kernels::BK_ISA
