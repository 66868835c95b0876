// Attention over a list of keys per query (models.md G.3: the sink only enlarges the denominator) and the indexer (F.1,
// F.2), from their formulas, on any scalar.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::reference {

using KeyLists = std::vector<std::vector<int32_t>>;  // per query

struct SparseAttention {
  size_t heads, kv_heads, qk, vd;
  double scale;
  KeyLists lists;

  template <class S>
  struct Output {
    std::vector<S> o, lse;
  };

  template <class S>
  S logit(const std::vector<S>& q, const std::vector<S>& k, size_t t, size_t h, int32_t key) const;

  // sink: one value per head, or none.
  template <class S>
  Output<S> forward(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& v,
                    const std::vector<S>& sink) const;

  // Rows of `width`: probabilities of the listed keys summed over heads, L1-normalised.
  std::vector<double> target(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& lse,
                             size_t width) const;
};

struct Indexer {
  size_t heads, dim;

  template <class S>
  S score(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w, size_t t, size_t s) const;

  // The best `most` of [first[t], end[t]), ascending; equal scores: the lower key.
  template <class S>
  KeyLists select(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w,
                  const std::vector<int32_t>& first, const std::vector<int32_t>& end, size_t most) const;

  // sum_t KL(p_t || softmax I_t); p in rows of `width`.
  template <class S>
  S divergence(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& w, const KeyLists& lists,
               const std::vector<double>& p, size_t width) const;
};

}  // namespace birkhoff::reference
