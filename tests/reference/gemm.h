// Matrix products from their definition, on any scalar; row-major vectors.
#pragma once
#include <cstddef>
#include <vector>

namespace birkhoff::reference {

// c [m, n] = a [m, k] b [k, n]
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

// y [t, n] = x [t, k] w^T for w [n, k]
template <class S>
std::vector<S> linear(const std::vector<S>& x, const std::vector<S>& w, size_t t, size_t k, size_t n) {
  return product(x, transpose(w, n, k), t, k, n);
}

}  // namespace birkhoff::reference
