#include "kernels/residual/sinkhorn.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// Entries below e^-80 of their column's largest are as good as zero; the floor keeps every sum a normal number.
constexpr float kFloor = -80.f;

// Sum along one line of an n x n matrix of vectors: over rows of column `line`, or over columns of row `line`.
template <int N>
inline V line_sum(const V* m, int line, bool column) {
  V s = m[column ? line : line * N];
  for (int i = 1; i < N; ++i) s = s + m[column ? i * N + line : line * N + i];
  return s;
}

// m /= (sum of each line + eps); keeps the denominators.
template <int N>
inline void normalise(V* m, bool columns, V eps, float* history) {
  for (int a = 0; a < N; ++a) {
    const V d = line_sum<N>(m, a, columns) + eps;
    const V r = set1(1.f) / d;
    if (history) store(history + a * kSoaTokens, d);
    for (int i = 0; i < N; ++i) {
      V& x = m[columns ? i * N + a : a * N + i];
      x = x * r;
    }
  }
}

template <int N>
inline void start_matrix(const float* z, V* m, V eps, bool v4) {
  for (int i = 0; i < N * N; ++i) m[i] = load(z + i * kSoaTokens);
  for (int a = 0; a < N; ++a) {  // v4: lines are rows; paper: columns
    const auto at = [&](int i) -> V& { return m[v4 ? a * N + i : i * N + a]; };
    V top = at(0);
    for (int i = 1; i < N; ++i) top = max(top, at(i));
    for (int i = 0; i < N; ++i) at(i) = v4 ? exp(at(i) - top) : exp(max(set1(kFloor), at(i) - top));
    if (!v4) continue;
    V sum = at(0);
    for (int i = 1; i < N; ++i) sum = sum + at(i);
    const V r = set1(1.f) / sum;
    for (int i = 0; i < N; ++i) at(i) = at(i) * r + eps;
  }
}

// Normalisations alternate columns, rows: 2 iters - 1 of them for v4 (ends with columns), 2 iters for the paper (ends
// with rows).
inline int normalisations(int iters, bool v4) { return v4 ? 2 * iters - 1 : 2 * iters; }

template <int N>
void forward_n(const float* z, float* s, int iters, float eps, bool v4, float* history) {
  const V veps = set1(v4 ? eps : 0.f);
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) {
    V m[N * N];
    start_matrix<N>(z + lane, m, veps, v4);
    const int steps = normalisations(iters, v4);
    for (int i = 0; i < steps; ++i)
      normalise<N>(m, i % 2 == 0, veps, history ? history + lane + i * N * kSoaTokens : nullptr);
    for (int i = 0; i < N * N; ++i) store(s + lane + i * kSoaTokens, m[i]);
  }
}

template <int N>
void backward_n(const float* z, const float* ds, float* dz, int iters, float eps, bool v4, float* history,
                float* work) {
  forward_n<N>(z, work, iters, eps, v4, history);
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) {
    V m[N * N], d[N * N];
    for (int i = 0; i < N * N; ++i) {
      m[i] = load(work + lane + i * kSoaTokens);
      d[i] = load(ds + lane + i * kSoaTokens);
    }
    for (int step = normalisations(iters, v4) - 1; step >= 0; --step) {
      const bool columns = step % 2 == 0;
      for (int a = 0; a < N; ++a) {
        const V denominator = load(history + lane + (step * N + a) * kSoaTokens);
        const V r = set1(1.f) / denominator;
        V dot = set1(0.f);
        for (int i = 0; i < N; ++i) {
          const int at = columns ? i * N + a : a * N + i;
          dot = fma(d[at], m[at], dot);
        }
        for (int i = 0; i < N; ++i) {
          const int at = columns ? i * N + a : a * N + i;
          d[at] = (d[at] - dot) * r;
          m[at] = m[at] * denominator;  // what the normalisation was given
        }
      }
    }
    if (!v4) {
      for (int i = 0; i < N * N; ++i) store(dz + lane + i * kSoaTokens, d[i] * m[i]);
      continue;
    }
    start_matrix<N>(z + lane, m, set1(0.f), true);  // the softmax itself
    for (int a = 0; a < N; ++a) {
      V dot = set1(0.f);
      for (int i = 0; i < N; ++i) dot = fma(d[a * N + i], m[a * N + i], dot);
      for (int i = 0; i < N; ++i) store(dz + lane + (a * N + i) * kSoaTokens, m[a * N + i] * (d[a * N + i] - dot));
    }
  }
}

void forward(const float* z, float* s, int n, int iters, float eps, bool v4, float* history) {
  switch (n) {
    case 1:
      return forward_n<1>(z, s, iters, eps, v4, history);
    case 2:
      return forward_n<2>(z, s, iters, eps, v4, history);
    case 3:
      return forward_n<3>(z, s, iters, eps, v4, history);
    case 4:
      return forward_n<4>(z, s, iters, eps, v4, history);
    case 5:
      return forward_n<5>(z, s, iters, eps, v4, history);
    case 6:
      return forward_n<6>(z, s, iters, eps, v4, history);
    case 7:
      return forward_n<7>(z, s, iters, eps, v4, history);
    case 8:
      return forward_n<8>(z, s, iters, eps, v4, history);
  }
}

void backward(const float* z, const float* ds, float* dz, int n, int iters, float eps, bool v4, float* history,
              float* work) {
  switch (n) {
    case 1:
      return backward_n<1>(z, ds, dz, iters, eps, v4, history, work);
    case 2:
      return backward_n<2>(z, ds, dz, iters, eps, v4, history, work);
    case 3:
      return backward_n<3>(z, ds, dz, iters, eps, v4, history, work);
    case 4:
      return backward_n<4>(z, ds, dz, iters, eps, v4, history, work);
    case 5:
      return backward_n<5>(z, ds, dz, iters, eps, v4, history, work);
    case 6:
      return backward_n<6>(z, ds, dz, iters, eps, v4, history, work);
    case 7:
      return backward_n<7>(z, ds, dz, iters, eps, v4, history, work);
    case 8:
      return backward_n<8>(z, ds, dz, iters, eps, v4, history, work);
  }
}

void sigmoid_row(const float* q, float scale, float base, float factor, float eps, float* y) {
  for (int t = 0; t < kSoaTokens; t += kLanes)
    store(y + t, fma(set1(factor), sigmoid(fma(set1(scale), load(q + t), set1(base))), set1(eps)));
}

void sigmoid_backward(const float* q, float scale, float base, float factor, const float* dy, float* dz) {
  for (int t = 0; t < kSoaTokens; t += kLanes) {
    const V s = sigmoid(fma(set1(scale), load(q + t), set1(base)));
    store(dz + t, set1(factor) * load(dy + t) * s * (set1(1.f) - s));
  }
}

void tanh_row(const float* q, float scale, float base, float* y) {
  for (int t = 0; t < kSoaTokens; t += kLanes) store(y + t, fma(set1(scale), tanh(load(q + t)), set1(base)));
}

void tanh_backward(const float* q, float scale, const float* dy, float* dq, float* dt) {
  for (int t = 0; t < kSoaTokens; t += kLanes) {
    const V y = tanh(load(q + t)), d = load(dy + t);
    store(dt + t, d * y);
    store(dq + t, set1(scale) * d * (set1(1.f) - y * y));
  }
}

}  // namespace

const SinkhornKernels sinkhorn_kernels = {forward, backward, sigmoid_row, sigmoid_backward, tanh_row, tanh_backward};

}  // namespace birkhoff::kernels::BK_ISA
