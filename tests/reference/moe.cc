#include "reference/moe.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "reference/gemm.h"
#include "reference/layers.h"

namespace birkhoff::reference {

template <class S>
std::vector<S> Router::scores(const S* logits) const {
  std::vector<S> s(experts);
  double top = real_part(logits[0]);
  for (size_t e = 0; e < experts; ++e) top = std::max(top, real_part(logits[e]));
  S sum = 0;
  for (size_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - top);
  for (size_t e = 0; e < experts; ++e) {
    if (score == Score::softmax) s[e] = std::exp(logits[e] - top) / sum;
    if (score == Score::sigmoid) s[e] = 1.0 / (1.0 + std::exp(-logits[e]));
    if (score == Score::sqrtsoftplus) s[e] = std::sqrt(std::log(1.0 + std::exp(logits[e])));
  }
  return s;
}

template <class S>
std::vector<size_t> Router::choose(const std::vector<S>& s, const std::vector<S>& b) const {
  std::vector<double> value(experts);
  for (size_t e = 0; e < experts; ++e) value[e] = real_part(s[e]) + (bias ? real_part(b[e]) : 0);
  const auto ranked = [](const std::vector<double>& v) {
    std::vector<size_t> order(v.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return v[i] > v[j]; });
    return order;
  };
  const size_t size = experts / groups;
  std::vector<double> group(groups);
  for (size_t g = 0; g < groups; ++g) {
    std::vector<double> members(value.begin() + static_cast<std::ptrdiff_t>(g * size),
                                value.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    group[g] = members[0] + (bias && size > 1 ? members[1] : 0);
  }
  const auto best_groups = ranked(group);
  const std::set<size_t> kept(best_groups.begin(), best_groups.begin() + static_cast<std::ptrdiff_t>(kept_groups));
  for (size_t e = 0; e < experts; ++e)
    if (!kept.count(e / size)) value[e] = -INFINITY;
  auto chosen = ranked(value);
  chosen.resize(active);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

template <class S>
void MixtralPool<S>::add(const std::vector<std::vector<S>>& a, const std::vector<size_t>& index, size_t experts) {
  count.resize(experts), affinity.resize(experts);
  tokens += static_cast<double>(a.size());
  for (size_t e : index) ++count[e];
  for (const auto& row : a)
    for (size_t e = 0; e < experts; ++e) affinity[e] += row[e];
}

template <class S>
S MixtralPool<S>::loss() const {
  S sum = 0;
  for (size_t e = 0; e < count.size(); ++e)
    sum += static_cast<double>(count.size()) * (count[e] / tokens) * (affinity[e] / tokens);
  return sum;
}

namespace {

// Losses of one group of tokens [first, last): models.md C.3 and D.6, with affinities a[t][e] that sum to one over e.
template <class S>
S balance_of(const Balance& b, const Router& r, const std::vector<std::vector<S>>& a, const std::vector<size_t>& index,
             size_t first, size_t last, bool as_sequence) {
  const auto T = static_cast<double>(last - first), E = static_cast<double>(r.experts),
             K = static_cast<double>(r.active), D = static_cast<double>(b.devices);
  std::vector<double> count(r.experts), sent(b.devices);
  std::vector<S> mean(r.experts);
  const size_t per_device = r.experts / b.devices;
  for (size_t t = first; t < last; ++t) {
    std::set<size_t> devices;
    for (size_t k = 0; k < r.active; ++k) {
      ++count[index[t * r.active + k]];
      devices.insert(index[t * r.active + k] / per_device);
    }
    for (size_t d : devices) ++sent[d];
    for (size_t e = 0; e < r.experts; ++e) mean[e] += a[t][e] / T;
  }
  S loss = 0;
  for (size_t e = 0; e < r.experts; ++e) {
    const double f = E / (K * T) * count[e];
    if (as_sequence)
      loss += b.sequence * f * mean[e];
    else
      loss += b.expert * f * mean[e];
  }
  if (as_sequence) return loss;
  for (size_t d = 0; d < b.devices; ++d) {
    double f = 0;
    S p = 0;
    for (size_t e = d * per_device; e < (d + 1) * per_device; ++e) {
      f += E / (K * T) * count[e] / static_cast<double>(per_device);
      p += mean[e];
    }
    loss += b.device * f * p + b.communication * D / (static_cast<double>(b.devices_per_token) * T) * sent[d] * p;
  }
  return loss;
}

}  // namespace

template <class S>
MoeResult<S> Moe::operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T,
                             const std::vector<int32_t>& sequences, const std::vector<int32_t>& ids,
                             MixtralPool<S>* pool) const {
  MoeResult<S> r;
  const auto logits = linear(x, w.at(p + "gate.weight"), T, dim, router.experts);
  const std::vector<S> bias = router.bias ? w.at(p + "gate.e_score_correction_bias") : std::vector<S>{};
  r.y.assign(T * dim, S(0));
  std::vector<std::vector<S>> affinity;
  for (size_t t = 0; t < T; ++t) {
    const auto s = router.scores(logits.data() + t * router.experts);
    auto chosen = router.choose(s, bias);
    if (!ids.empty()) {
      const S* row = w.at(p + "gate.tid2eid").data() + static_cast<size_t>(ids[t]) * router.active;
      for (size_t k = 0; k < router.active; ++k) chosen[k] = static_cast<size_t>(real_part(row[k]));
      std::sort(chosen.begin(), chosen.end());
    }
    S sum = 0, all = 0;
    for (const S& v : s) all += v;
    for (size_t e : chosen) sum += s[e];
    const std::vector<S> row(x.begin() + static_cast<std::ptrdiff_t>(t * dim),
                             x.begin() + static_cast<std::ptrdiff_t>((t + 1) * dim));
    for (size_t e : chosen) {
      const S weight = s[e] * router.scaling / (router.normalise ? sum + 1e-20 : S(1));
      const auto out = SwiGlu{dim, inter, limit}(w, p + "experts." + std::to_string(e) + ".", row, 1);
      for (size_t c = 0; c < dim; ++c) r.y[t * dim + c] += weight * out[c];
      r.index.push_back(e);
    }
    affinity.emplace_back();
    for (const S& v : s) affinity.back().push_back(v / all);
  }
  if (shared_inter) {
    const auto out = SwiGlu{dim, shared_inter, limit}(w, p + "shared_experts.", x, T);
    for (size_t i = 0; i < out.size(); ++i) r.y[i] += out[i];
  }
  if (T == 0) return r;
  r.balance = balance_of(balance, router, affinity, r.index, 0, T, false);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const size_t first = static_cast<size_t>(sequences[i]),
                 last = i + 1 < sequences.size() ? static_cast<size_t>(sequences[i + 1]) : T;
    r.balance +=
        balance_of(balance, router, affinity, r.index, first, last, true) / static_cast<double>(sequences.size());
  }
  MixtralPool<S> own;
  (pool ? *pool : own).add(affinity, r.index, router.experts);
  if (!pool) r.balance += balance.mixtral * own.loss();
  return r;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                                    \
  template std::vector<S> Router::scores(const S*) const;                                                          \
  template std::vector<size_t> Router::choose(const std::vector<S>&, const std::vector<S>&) const;                 \
  template struct MixtralPool<S>;                                                                                  \
  template MoeResult<S> Moe::operator()(const Tensors<S>&, const std::string&, const std::vector<S>&, size_t,      \
                                        const std::vector<int32_t>&, const std::vector<int32_t>&, MixtralPool<S>*) \
      const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
