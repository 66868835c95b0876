// Matrix products from their definition, on any scalar; row-major vectors.
#pragma once
#include <cstddef>
#include <vector>

namespace birkhoff::reference {

// c [m, n] = a [m, k] b [k, n]
template <class S>
std::vector<S> product(const std::vector<S>& a, const std::vector<S>& b, size_t m, size_t k, size_t n);

template <class S>
std::vector<S> transpose(const std::vector<S>& a, size_t rows, size_t cols);

// y [t, n] = x [t, k] w^T for w [n, k]
template <class S>
std::vector<S> linear(const std::vector<S>& x, const std::vector<S>& w, size_t t, size_t k, size_t n);

}  // namespace birkhoff::reference
