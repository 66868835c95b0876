#include "kernels/streams.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// The value as stored: what later passes will read.
template <class T>
inline V stored(T* p, V v, int k) {
  store_some(p, v, k);
  return load_some(p, k);
}

template <class T, int N>
void write_n(const T* x, const T* y, const float* res, const float* post, T* out, int64_t d, float* squares) {
  V acc[N];
  for (int k = 0; k < N; ++k) acc[k] = set1(0.f);
  for_lanes(d, [&](int64_t c, int lanes) {
    V in[N];
    for (int j = 0; j < N; ++j) in[j] = load_some(x + j * d + c, lanes);
    const V yv = y ? load_some(y + c, lanes) : set1(0.f);
    for (int k = 0; k < N; ++k) {
      V s = set1(post[k]) * yv;
      for (int j = 0; j < N; ++j) s = fma(set1(res[k * N + j]), in[j], s);
      const V v = stored(out + k * d + c, s, lanes);
      acc[k] = fma(v, v, acc[k]);
    }
  });
  for (int k = 0; k < N; ++k) squares[k] = reduce_add(acc[k]);
}

template <class T, int N>
void squares_n(const T* x, int64_t d, float* squares) {
  for (int k = 0; k < N; ++k) {
    V acc = set1(0.f);
    for_lanes(d, [&](int64_t c, int lanes) {
      const V v = load_some(x + k * d + c, lanes);
      acc = fma(v, v, acc);
    });
    squares[k] = reduce_add(acc);
  }
}

inline float inverse_root(float mean) {
  return 1.f / __builtin_sqrtf(mean);
}

template <class T, int N>
float read_norm_n(const T* x, const float* pre, const float* w, float eps, float* u, T* in, int64_t d) {
  V acc = set1(0.f);
  for_lanes(d, [&](int64_t c, int lanes) {
    V s = set1(pre[0]) * load_some(x + c, lanes);
    for (int j = 1; j < N; ++j) s = fma(set1(pre[j]), load_some(x + j * d + c, lanes), s);
    store_some(u + c, s, lanes);
    acc = fma(s, s, acc);
  });
  if (!in) return 0;
  const float rstd = inverse_root(reduce_add(acc) / static_cast<float>(d) + eps);
  for_lanes(d, [&](int64_t c, int lanes) { store_some(in + c, load_some(w + c, lanes) * (load_some(u + c, lanes) * set1(rstd)), lanes); });
  return rstd;
}

// du = rstd (w d_in - xhat mean(w d_in xhat)), xhat = u rstd; dw += d_in xhat.
template <class T>
void norm_backward(const T* d_in, const float* w, float rstd, float* u, float* dw, int64_t d) {
  V dot = set1(0.f);
  const V r = set1(rstd);
  for_lanes(d, [&](int64_t c, int lanes) {
    const V g = load_some(d_in + c, lanes), xhat = load_some(u + c, lanes) * r;
    dot = fma(g * load_some(w + c, lanes), xhat, dot);
    store_some(dw + c, fma(g, xhat, load_some(dw + c, lanes)), lanes);
  });
  const V mean = set1(reduce_add(dot) / static_cast<float>(d));
  for_lanes(d, [&](int64_t c, int lanes) {
    const V xhat = load_some(u + c, lanes) * r;
    store_some(u + c, r * (load_some(d_in + c, lanes) * load_some(w + c, lanes) - xhat * mean), lanes);
  });
}

template <class T, int N>
void dots_n(const T* x, const T* y, const T* g, const T* d_in, const float* w, float rstd, float* u, float* dw, int64_t d, StreamGradients& out) {
  norm_backward(d_in, w, rstd, u, dw, d);
  // With few streams all sums fit the registers and x, g, y, du pass once; with more, one pass for every pair of rows of g.
  constexpr int kRows = N <= 4 ? N : 2;
  for (int k0 = 0; k0 < N; k0 += kRows) {
    V res[kRows * N], post[kRows], pre[N];
    for (auto& v : res) v = set1(0.f);
    for (auto& v : post) v = set1(0.f);
    for (auto& v : pre) v = set1(0.f);
    const int rows = N - k0 < kRows ? N - k0 : kRows;
    for_lanes(d, [&](int64_t c, int lanes) {
      V in[N];
      for (int j = 0; j < N; ++j) in[j] = load_some(x + j * d + c, lanes);
      const V yv = load_some(y + c, lanes);
      for (int k = 0; k < rows; ++k) {
        const V gv = load_some(g + (k0 + k) * d + c, lanes);
        post[k] = fma(gv, yv, post[k]);
        for (int j = 0; j < N; ++j) res[k * N + j] = fma(gv, in[j], res[k * N + j]);
      }
      if (k0 == 0) {
        const V du = load_some(u + c, lanes);
        for (int j = 0; j < N; ++j) pre[j] = fma(du, in[j], pre[j]);
      }
    });
    for (int k = 0; k < rows; ++k) {
      out.post[k0 + k] = reduce_add(post[k]);
      for (int j = 0; j < N; ++j) out.res[(k0 + k) * N + j] = reduce_add(res[k * N + j]);
    }
    if (k0 == 0)
      for (int j = 0; j < N; ++j) out.pre[j] = reduce_add(pre[j]);
  }
}

template <class T, int N>
void state_gradient_n(const T* x, const T* g, const float* du, const float* res, const float* pre, const T* proj, const float* cx, T* dx, const float* post_before,
                      T* y_before, int64_t d) {
  for_lanes(d, [&](int64_t c, int lanes) {
    V in[N], out[N];
    for (int k = 0; k < N; ++k) in[k] = load_some(g + k * d + c, lanes);
    const V duv = load_some(du + c, lanes);
    for (int j = 0; j < N; ++j) {
      V s = set1(pre[j]) * duv;
      for (int k = 0; k < N; ++k) s = fma(set1(res[k * N + j]), in[k], s);
      if (proj) s = s + load_some(proj + j * d + c, lanes) - set1(cx[j]) * load_some(x + j * d + c, lanes);
      out[j] = stored(dx + j * d + c, s, lanes);
    }
    if (!y_before) return;
    V s = set1(post_before[0]) * out[0];
    for (int k = 1; k < N; ++k) s = fma(set1(post_before[k]), out[k], s);
    store_some(y_before + c, s, lanes);
  });
}

template <class T, int N>
void weighted_sum_n(const T* x, const float* w, T* out, int64_t d) {
  for_lanes(d, [&](int64_t c, int lanes) {
    V s = set1(w[0]) * load_some(x + c, lanes);
    for (int j = 1; j < N; ++j) s = fma(set1(w[j]), load_some(x + j * d + c, lanes), s);
    store_some(out + c, s, lanes);
  });
}

template <class T, int N>
void sum_dots_n(const T* x, const T* d_out, float* dw, int64_t d) {
  for (int j = 0; j < N; ++j) {
    V acc = set1(0.f);
    for_lanes(d, [&](int64_t c, int lanes) { acc = fma(load_some(d_out + c, lanes), load_some(x + j * d + c, lanes), acc); });
    dw[j] = reduce_add(acc);
  }
}

#define BK_FOR_STREAMS(call) \
  switch (n) {               \
    case 1: return call(1);  \
    case 2: return call(2);  \
    case 3: return call(3);  \
    case 4: return call(4);  \
    case 5: return call(5);  \
    case 6: return call(6);  \
    case 7: return call(7);  \
    default: return call(8); \
  }

template <class T>
struct Entry {
  static void write(const T* x, const T* y, const float* res, const float* post, T* out, int n, int64_t d, float* squares) {
#define BK_CALL(N) write_n<T, N>(x, y, res, post, out, d, squares)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void squares(const T* x, int n, int64_t d, float* out) {
#define BK_CALL(N) squares_n<T, N>(x, d, out)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static float read_norm(const T* x, const float* pre, const float* w, float eps, float* u, T* in, int n, int64_t d) {
#define BK_CALL(N) read_norm_n<T, N>(x, pre, w, eps, u, in, d)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void dots(const T* x, const T* y, const T* g, const T* d_in, const float* w, float rstd, float* u, float* dw, int n, int64_t d, StreamGradients& out) {
#define BK_CALL(N) dots_n<T, N>(x, y, g, d_in, w, rstd, u, dw, d, out)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void state_gradient(const T* x, const T* g, const float* du, const float* res, const float* pre, const T* proj, const float* c, T* dx,
                             const float* post_before, T* y_before, int n, int64_t d) {
#define BK_CALL(N) state_gradient_n<T, N>(x, g, du, res, pre, proj, c, dx, post_before, y_before, d)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void weighted_sum(const T* x, const float* w, T* out, int n, int64_t d) {
#define BK_CALL(N) weighted_sum_n<T, N>(x, w, out, d)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void sum_dots(const T* x, const T* d_out, float* dw, int n, int64_t d) {
#define BK_CALL(N) sum_dots_n<T, N>(x, d_out, dw, d)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static constexpr StreamKernels<T> table() { return {write, squares, read_norm, dots, state_gradient, weighted_sum, sum_dots}; }
};
#undef BK_FOR_STREAMS

}  // namespace

const StreamTables stream_kernels = {Entry<float>::table(), Entry<bf16>::table()};

}  // namespace birkhoff::kernels::BK_ISA
