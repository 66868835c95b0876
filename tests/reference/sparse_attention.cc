#include "reference/sparse_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/tensors.h"

namespace birkhoff::reference {

template <class S>
S SparseAttention::logit(const std::vector<S>& q, const std::vector<S>& k, size_t t, size_t h, int32_t key) const {
  const size_t g = h / (heads / kv_heads);
  S sum = 0;
  for (size_t c = 0; c < qk; ++c)
    sum += q[(t * heads + h) * qk + c] * k[(static_cast<size_t>(key) * kv_heads + g) * qk + c];
  return sum * scale;
}

template <class S>
SparseAttention::Output<S> SparseAttention::forward(const std::vector<S>& q, const std::vector<S>& k,
                                                    const std::vector<S>& v, const std::vector<S>& sink) const {
  Output<S> out;
  for (size_t t = 0; t < lists.size(); ++t) {
    for (size_t h = 0; h < heads; ++h) {
      S sum = sink.empty() ? S(0) : std::exp(sink[h]);
      std::vector<S> o(vd, S(0));
      for (int32_t key : lists[t]) {
        const S e = std::exp(logit(q, k, t, h, key));
        sum += e;
        for (size_t c = 0; c < vd; ++c)
          o[c] += e * v[(static_cast<size_t>(key) * kv_heads + h / (heads / kv_heads)) * vd + c];
      }
      for (const S& x : o) out.o.push_back(x / sum);
      out.lse.push_back(std::log(sum));
    }
  }
  return out;
}

std::vector<double> SparseAttention::target(const std::vector<double>& q, const std::vector<double>& k,
                                            const std::vector<double>& lse, size_t width) const {
  std::vector<double> p(lists.size() * width);
  for (size_t t = 0; t < lists.size(); ++t) {
    double total = 0;
    for (size_t j = 0; j < lists[t].size(); ++j) {
      for (size_t h = 0; h < heads; ++h)
        p[t * width + j] += std::exp(logit(q, k, t, h, lists[t][j]) - lse[t * heads + h]);
      total += p[t * width + j];
    }
    for (size_t j = 0; j < lists[t].size(); ++j) p[t * width + j] /= total;
  }
  return p;
}

template <class S>
S Indexer::score(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w, size_t t, size_t s) const {
  S sum = 0;
  for (size_t h = 0; h < heads; ++h) {
    S dot = 0;
    for (size_t c = 0; c < dim; ++c) dot += q[(t * heads + h) * dim + c] * k[s * dim + c];
    if (real_part(dot) > 0) sum += w[t * heads + h] * dot;
  }
  return sum;
}

template <class S>
KeyLists Indexer::select(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w,
                         const std::vector<int32_t>& first, const std::vector<int32_t>& end, size_t most) const {
  KeyLists lists;
  for (size_t t = 0; t < first.size(); ++t) {
    std::vector<int32_t> keys(static_cast<size_t>(end[t] - first[t]));
    std::iota(keys.begin(), keys.end(), first[t]);
    std::vector<double> value;
    for (int32_t s : keys) value.push_back(real_part(score(q, k, w, t, static_cast<size_t>(s))));
    std::stable_sort(keys.begin(), keys.end(), [&](int32_t a, int32_t b) {
      return value[static_cast<size_t>(a - first[t])] > value[static_cast<size_t>(b - first[t])];
    });
    if (keys.size() > most) keys.resize(most);
    std::sort(keys.begin(), keys.end());
    lists.push_back(keys);
  }
  return lists;
}

template <class S>
S Indexer::divergence(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w, const KeyLists& lists,
                      const std::vector<double>& p, size_t width) const {
  S loss = 0;
  for (size_t t = 0; t < lists.size(); ++t) {
    S total = 0;
    for (int32_t s : lists[t]) total += std::exp(score(q, k, w, t, static_cast<size_t>(s)));
    for (size_t j = 0; j < lists[t].size(); ++j) {
      const double target = p[t * width + j];
      if (target > 0)
        loss += target * (std::log(target) - score(q, k, w, t, static_cast<size_t>(lists[t][j])) + std::log(total));
    }
  }
  return loss;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                                        \
  template S SparseAttention::logit(const std::vector<S>&, const std::vector<S>&, size_t, size_t, int32_t) const;      \
  template SparseAttention::Output<S> SparseAttention::forward(const std::vector<S>&, const std::vector<S>&,           \
                                                               const std::vector<S>&, const std::vector<S>&) const;    \
  template S Indexer::score(const std::vector<S>&, const std::vector<S>&, const std::vector<S>&, size_t, size_t)       \
      const;                                                                                                           \
  template KeyLists Indexer::select(const std::vector<S>&, const std::vector<S>&, const std::vector<S>&,               \
                                    const std::vector<int32_t>&, const std::vector<int32_t>&, size_t) const;           \
  template S Indexer::divergence(const std::vector<S>&, const std::vector<S>&, const std::vector<S>&, const KeyLists&, \
                                 const std::vector<double>&, size_t) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
