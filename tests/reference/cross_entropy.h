// L = scale * sum over counted tokens of (-log softmax(W h)[label] + z_coef * (log sum exp W h)^2), token by token.
#pragma once
#include <cmath>
#include <complex>
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
                              const std::vector<int32_t>& labels, int64_t dim) {
  CrossEntropy<S> r;
  const int64_t vocab = static_cast<int64_t>(head.size()) / dim;
  for (size_t t = 0; t < labels.size(); ++t) {
    r.per_token.push_back(0);
    if (labels[t] == -100) continue;
    S sum = 0, label_logit = 0;
    for (int64_t w = 0; w < vocab; ++w) {
      S logit = 0;
      for (int64_t c = 0; c < dim; ++c)
        logit += hidden[t * static_cast<size_t>(dim) + static_cast<size_t>(c)] * head[static_cast<size_t>(w * dim + c)];
      sum += std::exp(logit);
      if (w == labels[t]) label_logit = logit;
    }
    const S lse = std::log(sum);
    r.per_token.back() = lse - label_logit;
    r.cross_entropy += lse - label_logit;
    r.z += lse * lse;
    ++r.tokens;
  }
  return r;
}

}  // namespace birkhoff::reference
