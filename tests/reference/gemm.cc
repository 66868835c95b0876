#include "reference/gemm.h"

#include "reference/complex_step.h"

namespace birkhoff::reference {

template <class S>
std::vector<S> product(const std::vector<S>& a, const std::vector<S>& b, size_t m, size_t k, size_t n) {
  std::vector<S> c(m * n, S(0));
  for (size_t i = 0; i < m; ++i)
    for (size_t j = 0; j < n; ++j)
      for (size_t p = 0; p < k; ++p) c[i * n + j] += a[i * k + p] * b[p * n + j];
  return c;
}

template <class S>
std::vector<S> transpose(const std::vector<S>& a, size_t rows, size_t cols) {
  std::vector<S> t(a.size());
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < cols; ++j) t[j * rows + i] = a[i * cols + j];
  return t;
}

template <class S>
std::vector<S> linear(const std::vector<S>& x, const std::vector<S>& w, size_t t, size_t k, size_t n) {
  return product(x, transpose(w, n, k), t, k, n);
}

#define BIRKHOFF_INSTANTIATE(S)                                                                          \
  template std::vector<S> product(const std::vector<S>&, const std::vector<S>&, size_t, size_t, size_t); \
  template std::vector<S> transpose(const std::vector<S>&, size_t, size_t);                              \
  template std::vector<S> linear(const std::vector<S>&, const std::vector<S>&, size_t, size_t, size_t)
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
