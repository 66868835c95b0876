#include "reference/cross_entropy.h"

#include <cmath>

#include "reference/complex_step.h"

namespace birkhoff::reference {

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

#define BIRKHOFF_INSTANTIATE(S)                                                                                     \
  template CrossEntropy<S> cross_entropy(const std::vector<S>&, const std::vector<S>&, const std::vector<int32_t>&, \
                                         int64_t)
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
