#include "kernels/residual/streams.h"

#include "kernels/pairs.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class T>
inline Raw<T> packed(Pair v) {
  Raw<T> r;
  pack(v, r);
  return r;
}

template <class T, int N>
inline void load_streams(const T* x, int64_t d, int64_t c, int n, Raw<T> (&raw)[N]) {
  for (int j = 0; j < N; ++j) raw[j] = load_raw(x + j * d + c, n);
}

template <class T, int N>
void write_n(const T* x, const T* y, const float* res, const float* post, T* out, int64_t d, float* squares) {
  V acc[N];
  for (int k = 0; k < N; ++k) acc[k] = set1(0.f);
  for_pairs(d, [&](int64_t c, int n) {
    Raw<T> raw[N];
    load_streams<T, N>(x, d, c, n, raw);
    Pair in[N];
    for (int j = 0; j < N; ++j) in[j] = unpack(raw[j]);
    const Pair yv = unpack(load_raw(y + c, n));
    for (int k = 0; k < N; ++k) {
      Pair s = set1(post[k]) * yv;
      for (int j = 0; j < N; ++j) s = fma(set1(res[k * N + j]), in[j], s);
      const Raw<T> v = packed<T>(s);
      store_raw(out + k * d + c, v, n);
      acc[k] = dot(acc[k], v, v);
    }
  });
  for (int k = 0; k < N; ++k) squares[k] = reduce_add(acc[k]);
}

template <class T, int N>
void squares_n(const T* x, int64_t d, float* squares) {
  for (int k = 0; k < N; ++k) {
    V acc = set1(0.f);
    for_pairs(d, [&](int64_t c, int n) {
      const Raw<T> v = load_raw(x + k * d + c, n);
      acc = dot(acc, v, v);
    });
    squares[k] = reduce_add(acc);
  }
}

inline float inverse_root(float mean) { return 1.f / __builtin_sqrtf(mean); }

template <class T, int N>
float read_norm_n(const T* x, const float* pre, const float* w, float eps, float* u, T* in, int64_t d) {
  V acc = set1(0.f);
  for_pairs(d, [&](int64_t c, int n) {
    Pair s = set1(pre[0]) * unpack(load_raw(x + c, n));
    for (int j = 1; j < N; ++j) s = fma(set1(pre[j]), unpack(load_raw(x + j * d + c, n)), s);
    store_arranged(u + c, s);
    acc = fma(s.b, s.b, fma(s.a, s.a, acc));
  });
  if (!in) return 0;
  const float rstd = inverse_root(reduce_add(acc) / static_cast<float>(d) + eps);
  const V r = set1(rstd);
  for_pairs(d, [&](int64_t c, int n) {
    const Pair uv = load_arranged(u + c), wv = load_arranged(w + c);
    store_raw(in + c, packed<T>({wv.a * (uv.a * r), wv.b * (uv.b * r)}), n);
  });
  return rstd;
}

// du = rstd (w d_in - xhat mean(w d_in xhat)), xhat = u rstd; dw += d_in xhat.
template <class T>
void norm_backward(const T* d_in, const float* w, float rstd, const float* u, float* dw, T* du, int64_t d) {
  V sum = set1(0.f);
  const V r = set1(rstd);
  for_pairs(d, [&](int64_t c, int n) {
    const Pair g = unpack(load_raw(d_in + c, n)), wv = load_arranged(w + c), xhat = r * load_arranged(u + c);
    const Pair dwv = load_arranged(dw + c);
    const V ga = g.a * xhat.a, gb = g.b * xhat.b;
    sum = fma(gb, wv.b, fma(ga, wv.a, sum));
    store_arranged(dw + c, {dwv.a + ga, dwv.b + gb});
  });
  const V mean = set1(reduce_add(sum) / static_cast<float>(d));
  for_pairs(d, [&](int64_t c, int n) {
    const Pair g = unpack(load_raw(d_in + c, n)), wv = load_arranged(w + c), xhat = r * load_arranged(u + c);
    store_raw(du + c, packed<T>({r * (g.a * wv.a - xhat.a * mean), r * (g.b * wv.b - xhat.b * mean)}), n);
  });
}

// Rows k0 .. k0+R-1 of the dots with g; with the first also those of du.
template <class T, int N, int R>
void dots_of_rows(const T* x, const T* y, const T* g, const T* du, int k0, int64_t d, StreamGradients& out) {
  V res[R][N], post[R], pre[N];
  for (int j = 0; j < N; ++j) pre[j] = set1(0.f);
  for (int k = 0; k < R; ++k) {
    post[k] = set1(0.f);
    for (int j = 0; j < N; ++j) res[k][j] = set1(0.f);
  }
  for_pairs(d, [&](int64_t c, int n) {
    Raw<T> in[N];
    load_streams<T, N>(x, d, c, n, in);
    const Raw<T> yv = load_raw(y + c, n);
    for (int k = 0; k < R; ++k) {
      const Raw<T> gv = load_raw(g + (k0 + k) * d + c, n);
      post[k] = dot(post[k], gv, yv);
      for (int j = 0; j < N; ++j) res[k][j] = dot(res[k][j], gv, in[j]);
    }
    if (k0 == 0) {
      const Raw<T> duv = load_raw(du + c, n);
      for (int j = 0; j < N; ++j) pre[j] = dot(pre[j], duv, in[j]);
    }
  });
  for (int k = 0; k < R; ++k) {
    out.post[k0 + k] = reduce_add(post[k]);
    for (int j = 0; j < N; ++j) out.res[(k0 + k) * N + j] = reduce_add(res[k][j]);
  }
  for (int j = 0; j < N && k0 == 0; ++j) out.pre[j] = reduce_add(pre[j]);
}

template <class T, int N>
void dots_n(const T* x, const T* y, const T* g, const T* d_in, const float* w, float rstd, const float* u, float* dw,
            T* du, int64_t d, StreamGradients& out) {
  norm_backward(d_in, w, rstd, u, dw, du, d);
  // With few streams all sums fit the registers and x, g, y, du pass once; with more, one pass for every pair of rows
  // of g.
  if constexpr (N <= 4) {
    dots_of_rows<T, N, N>(x, y, g, du, 0, d, out);
  } else {
    for (int k0 = 0; k0 + 2 <= N; k0 += 2) dots_of_rows<T, N, 2>(x, y, g, du, k0, d, out);
    if constexpr (N % 2 == 1) dots_of_rows<T, N, 1>(x, y, g, du, N - 1, d, out);
  }
}

template <class T, int N>
void state_gradient_n(const T* x, const T* g, const T* du, const float* res, const float* pre, const T* proj,
                      const float* cx, T* dx, const float* post_before, T* y_before, int64_t d) {
  for_pairs(d, [&](int64_t c, int n) {
    Pair in[N], before = {set1(0.f), set1(0.f)};
    for (int k = 0; k < N; ++k) in[k] = unpack(load_raw(g + k * d + c, n));
    const Pair duv = unpack(load_raw(du + c, n));
    for (int j = 0; j < N; ++j) {
      Pair s = set1(pre[j]) * duv;
      for (int k = 0; k < N; ++k) s = fma(set1(res[k * N + j]), in[k], s);
      if (proj) {
        const Pair p = unpack(load_raw(proj + j * d + c, n));
        s = fma(set1(-cx[j]), unpack(load_raw(x + j * d + c, n)), {s.a + p.a, s.b + p.b});
      }
      store_raw(dx + j * d + c, packed<T>(s), n);
      if (y_before) before = fma(set1(post_before[j]), s, before);
    }
    if (y_before) store_raw(y_before + c, packed<T>(before), n);
  });
}

template <class T, int N>
void weighted_sum_n(const T* x, const float* w, T* out, int64_t d) {
  for_pairs(d, [&](int64_t c, int n) {
    Pair s = set1(w[0]) * unpack(load_raw(x + c, n));
    for (int j = 1; j < N; ++j) s = fma(set1(w[j]), unpack(load_raw(x + j * d + c, n)), s);
    store_raw(out + c, packed<T>(s), n);
  });
}

template <class T, int N>
void sum_dots_n(const T* x, const T* d_out, float* dw, int64_t d) {
  for (int j = 0; j < N; ++j) {
    V acc = set1(0.f);
    for_pairs(d, [&](int64_t c, int n) { acc = dot(acc, load_raw(d_out + c, n), load_raw(x + j * d + c, n)); });
    dw[j] = reduce_add(acc);
  }
}

// Where element i of a group of kPairLanes stands when arranged as T's pairs are.
template <class T>
inline int arranged_at(int i) {
  if constexpr (sizeof(T) == sizeof(float)) return i;
  return i % 2 * kLanes + i / 2;
}

template <class T>
void arrange(const float* from, float* to, int64_t d) {
  for_pairs(d, [&](int64_t c, int n) {
    for (int i = 0; i < kPairLanes; ++i) to[c + arranged_at<T>(i)] = i < n ? from[c + i] : 0.f;
  });
}

template <class T>
void add_arranged(const float* from, float* to, int64_t d) {
  for_pairs(d, [&](int64_t c, int n) {
    for (int i = 0; i < n; ++i) to[c + i] += from[c + arranged_at<T>(i)];
  });
}

#define BK_FOR_STREAMS(call) \
  switch (n) {               \
    case 1:                  \
      return call(1);        \
    case 2:                  \
      return call(2);        \
    case 3:                  \
      return call(3);        \
    case 4:                  \
      return call(4);        \
    case 5:                  \
      return call(5);        \
    case 6:                  \
      return call(6);        \
    case 7:                  \
      return call(7);        \
    default:                 \
      return call(8);        \
  }

template <class T>
struct Entry {
  static void write(const T* x, const T* y, const float* res, const float* post, T* out, int n, int64_t d,
                    float* squares) {
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
  static void dots(const T* x, const T* y, const T* g, const T* d_in, const float* w, float rstd, const float* u,
                   float* dw, T* du, int n, int64_t d, StreamGradients& out) {
#define BK_CALL(N) dots_n<T, N>(x, y, g, d_in, w, rstd, u, dw, du, d, out)
    BK_FOR_STREAMS(BK_CALL)
#undef BK_CALL
  }
  static void state_gradient(const T* x, const T* g, const T* du, const float* res, const float* pre, const T* proj,
                             const float* c, T* dx, const float* post_before, T* y_before, int n, int64_t d) {
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
  static constexpr StreamKernels<T> table() {
    return {write, squares, read_norm, dots, state_gradient, weighted_sum, sum_dots, arrange<T>, add_arranged<T>};
  }
};
#undef BK_FOR_STREAMS

}  // namespace

const StreamTables stream_kernels = {Entry<float>::table(), Entry<bf16>::table()};

}  // namespace birkhoff::kernels::BK_ISA
