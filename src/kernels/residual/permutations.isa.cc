#include "kernels/residual/permutations.h"

#include "kernels/residual/sinkhorn.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int factorial(int n) { return n <= 1 ? 1 : n * factorial(n - 1); }

// Permutations of 0..N-1 in lexicographic order.
template <int N>
struct Permutations {
  signed char to[factorial(N)][N] = {};
  constexpr Permutations() {
    for (int p = 0; p < factorial(N); ++p) {
      bool used[N] = {};
      for (int a = 0, rest = p; a < N; ++a) {
        const int each = factorial(N - 1 - a);
        int skip = rest / each, b = 0;  // the skip-th number that is left
        for (rest %= each;; ++b)
          if (!used[b] && skip-- == 0) break;
        used[b] = true;
        to[p][a] = static_cast<signed char>(b);
      }
    }
  }
};
template <int N>
constexpr Permutations<N> kPermutations{};

// e = exp(z - max z), and m = sum_p e_p P_p divided by the sum of e. Returns 1 / that sum: the weights are e times it.
template <int N>
inline V mixture(const float* z, V* e, V* m) {
  constexpr int kCount = factorial(N);
  V top = load(z);
  for (int p = 1; p < kCount; ++p) top = max(top, load(z + p * kSoaTokens));
  for (int i = 0; i < N * N; ++i) m[i] = set1(0.f);
  for (int p = 0; p < kCount; ++p) e[p] = exp(load(z + p * kSoaTokens) - top);
  for (int p = 0; p < kCount; ++p)
    for (int a = 0; a < N; ++a) m[a * N + kPermutations<N>.to[p][a]] = m[a * N + kPermutations<N>.to[p][a]] + e[p];
  V sum = m[0];
  for (int b = 1; b < N; ++b) sum = sum + m[b];  // every weight stands in row 0 once
  const V r = set1(1.f) / sum;
  for (int i = 0; i < N * N; ++i) m[i] = m[i] * r;
  return r;
}

template <int N>
void lite_forward_n(const float* z, float* m) {
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) {
    V e[factorial(N)], h[N * N];
    mixture<N>(z + lane, e, h);
    for (int i = 0; i < N * N; ++i) store(m + lane + i * kSoaTokens, h[i]);
  }
}

// dz_p = w_p (g_p - sum_q w_q g_q) with g_p = <dm, P_p>, whose mean over the weights is <dm, m>.
template <int N>
void lite_backward_n(const float* z, const float* dm, float* dz, float* m) {
  constexpr int kCount = factorial(N);
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) {
    V e[kCount], h[N * N], d[N * N];
    const V r = mixture<N>(z + lane, e, h);
    V mean = set1(0.f);
    for (int i = 0; i < N * N; ++i) {
      store(m + lane + i * kSoaTokens, h[i]);
      d[i] = load(dm + lane + i * kSoaTokens);
      mean = fma(d[i], h[i], mean);
    }
    for (int p = 0; p < kCount; ++p) {
      V g = d[kPermutations<N>.to[p][0]];
      for (int a = 1; a < N; ++a) g = g + d[a * N + kPermutations<N>.to[p][a]];
      store(dz + lane + p * kSoaTokens, e[p] * r * (g - mean));
    }
  }
}

void lite_forward(const float* z, float* m, int n) {
  switch (n) {
    case 1:
      return lite_forward_n<1>(z, m);
    case 2:
      return lite_forward_n<2>(z, m);
    case 3:
      return lite_forward_n<3>(z, m);
    case 4:
      return lite_forward_n<4>(z, m);
    case 5:
      return lite_forward_n<5>(z, m);
  }
}

void lite_backward(const float* z, const float* dm, float* dz, float* m, int n) {
  switch (n) {
    case 1:
      return lite_backward_n<1>(z, dm, dz, m);
    case 2:
      return lite_backward_n<2>(z, dm, dz, m);
    case 3:
      return lite_backward_n<3>(z, dm, dz, m);
    case 4:
      return lite_backward_n<4>(z, dm, dz, m);
    case 5:
      return lite_backward_n<5>(z, dm, dz, m);
  }
}

// The first row of the product of K factors, and of every beginning of it: after f factors 2^f entries from t[2^f - 1]
// on.
template <int K>
struct Factors {
  V keep[K + 1], swap[K + 1];  // (a, b) of each factor
  V t[(2 << K) - 1];

  explicit Factors(const float* z) {
    t[0] = set1(1.f);
    for (int f = 0; f < K; ++f) {
      const V z0 = load(z + 2 * f * kSoaTokens), z1 = load(z + (2 * f + 1) * kSoaTokens), top = max(z0, z1);
      const V e0 = exp(z0 - top), e1 = exp(z1 - top), r = set1(1.f) / (e0 + e1);
      keep[f] = e0 * r;
      swap[f] = e1 * r;
      const V* from = t + (1 << f) - 1;
      V* to = t + (2 << f) - 1;
      for (int x = 0; x < 1 << f; ++x) {
        to[2 * x] = from[x] * keep[f];
        to[2 * x + 1] = from[x] * swap[f];
      }
    }
  }
  const V* row() const { return t + (1 << K) - 1; }
  void store_matrix(float* m) const {
    constexpr int kN = 1 << K;
    for (int r = 0; r < kN; ++r)
      for (int c = 0; c < kN; ++c) store(m + (r * kN + c) * kSoaTokens, row()[r ^ c]);
  }
};

template <int K>
void kron_forward_n(const float* z, float* m) {
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) Factors<K>(z + lane).store_matrix(m + lane);
}

template <int K>
void kron_backward_n(const float* z, const float* dm, float* dz, float* m) {
  constexpr int kN = 1 << K;
  for (int lane = 0; lane < kSoaTokens; lane += kLanes) {
    const Factors<K> factors(z + lane);
    factors.store_matrix(m + lane);
    V d[kN];  // gradient of the row, then of its beginnings
    for (int x = 0; x < kN; ++x) {
      d[x] = load(dm + lane + x * kSoaTokens);
      for (int r = 1; r < kN; ++r) d[x] = d[x] + load(dm + lane + (r * kN + (r ^ x)) * kSoaTokens);
    }
    for (int f = K - 1; f >= 0; --f) {
      const V a = factors.keep[f], b = factors.swap[f], *before = factors.t + (1 << f) - 1;
      V da = set1(0.f), db = set1(0.f);
      for (int x = 0; x < 1 << f; ++x) {
        da = fma(d[2 * x], before[x], da);
        db = fma(d[2 * x + 1], before[x], db);
        d[x] = fma(d[2 * x], a, d[2 * x + 1] * b);
      }
      const V slope = a * b * (da - db);  // of a two-way softmax
      store(dz + lane + 2 * f * kSoaTokens, slope);
      store(dz + lane + (2 * f + 1) * kSoaTokens, set1(0.f) - slope);
    }
  }
}

void kron_forward(const float* z, float* m, int n) {
  switch (n) {
    case 1:
      return kron_forward_n<0>(z, m);
    case 2:
      return kron_forward_n<1>(z, m);
    case 4:
      return kron_forward_n<2>(z, m);
    case 8:
      return kron_forward_n<3>(z, m);
  }
}

void kron_backward(const float* z, const float* dm, float* dz, float* m, int n) {
  switch (n) {
    case 1:
      return kron_backward_n<0>(z, dm, dz, m);
    case 2:
      return kron_backward_n<1>(z, dm, dz, m);
    case 4:
      return kron_backward_n<2>(z, dm, dz, m);
    case 8:
      return kron_backward_n<3>(z, dm, dz, m);
  }
}

}  // namespace

const PermutationKernels permutation_kernels = {{lite_forward, lite_backward}, {kron_forward, kron_backward}};

}  // namespace birkhoff::kernels::BK_ISA
