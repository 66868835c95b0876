// RMSNorm by its formula: y_i = w_i x_i / sqrt(mean_j x_j^2 + eps), and LayerNorm: y_i = w_i (x_i - mean) /
// sqrt(variance + eps) + b_i.
#pragma once
#include <cstddef>
#include <vector>

namespace birkhoff::reference {

template <class S>
std::vector<S> rms_norm(const std::vector<S>& x, const std::vector<S>& w, double eps);

template <class S>
std::vector<S> layer_norm(const std::vector<S>& x, const std::vector<S>& w, const std::vector<S>& b, double eps);

}  // namespace birkhoff::reference
