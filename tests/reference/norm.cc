#include "reference/norm.h"

#include <cmath>

#include "reference/complex_step.h"

namespace birkhoff::reference {

template <class S>
std::vector<S> rms_norm(const std::vector<S>& x, const std::vector<S>& w, double eps) {
  const size_t dim = w.size(), rows = dim ? x.size() / dim : 0;
  std::vector<S> y(x.size());
  for (size_t r = 0; r < rows; ++r) {
    S squares = 0;
    for (size_t i = 0; i < dim; ++i) squares += x[r * dim + i] * x[r * dim + i];
    const S root = std::sqrt(squares / static_cast<double>(dim) + eps);
    for (size_t i = 0; i < dim; ++i) y[r * dim + i] = w[i] * x[r * dim + i] / root;
  }
  return y;
}

template <class S>
std::vector<S> layer_norm(const std::vector<S>& x, const std::vector<S>& w, const std::vector<S>& b, double eps) {
  const size_t dim = w.size(), rows = dim ? x.size() / dim : 0;
  std::vector<S> y(x.size());
  for (size_t r = 0; r < rows; ++r) {
    S mean = 0, squares = 0;
    for (size_t i = 0; i < dim; ++i) mean += x[r * dim + i] / static_cast<double>(dim);
    for (size_t i = 0; i < dim; ++i) squares += (x[r * dim + i] - mean) * (x[r * dim + i] - mean);
    const S root = std::sqrt(squares / static_cast<double>(dim) + eps);
    for (size_t i = 0; i < dim; ++i) y[r * dim + i] = w[i] * (x[r * dim + i] - mean) / root + b[i];
  }
  return y;
}

#define BIRKHOFF_INSTANTIATE(S)                                                           \
  template std::vector<S> rms_norm(const std::vector<S>&, const std::vector<S>&, double); \
  template std::vector<S> layer_norm(const std::vector<S>&, const std::vector<S>&, const std::vector<S>&, double)
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
