// L = scale * sum over counted tokens of (-log softmax(W h)[label] + z_coef * (log sum exp W h)^2), token by token.
#pragma once
#include <cstdint>
#include <vector>

namespace birkhoff::reference {

template <class S>
struct CrossEntropy {
  S cross_entropy = 0, z = 0;
  int64_t tokens = 0;
  std::vector<S> per_token;  // -log p
};

// hidden [T, dim], head [vocab, dim]; label -100 is not counted.
template <class S>
CrossEntropy<S> cross_entropy(const std::vector<S>& hidden, const std::vector<S>& head,
                              const std::vector<int32_t>& labels, int64_t dim);

}  // namespace birkhoff::reference
