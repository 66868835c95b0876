#include "reference/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/tensors.h"

namespace birkhoff::reference {

template <class S>
S Attention::probabilities(const std::vector<S>& q, const std::vector<S>& k, int64_t t, int64_t h,
                           std::vector<S>& p) const {
  const int64_t g = h / (heads / kv_heads), first = first_key[static_cast<size_t>(t)];
  p.assign(static_cast<size_t>(last_key(t) - first + 1), S(0));
  double top = -INFINITY;
  for (size_t j = 0; j < p.size(); ++j) {
    for (int64_t c = 0; c < qk; ++c)
      p[j] += q[at(t, heads, h, qk, c)] * k[at(first + static_cast<int64_t>(j), kv_heads, g, qk, c)];
    p[j] *= scale;
    top = std::max(top, real_part(p[j]));
  }
  S sum = 0;
  for (S& x : p) sum += x = std::exp(x - top);
  for (S& x : p) x /= sum;
  return std::log(sum) + top;
}

template <class S>
Attention::Output<S> Attention::forward(const std::vector<S>& q, const std::vector<S>& k,
                                        const std::vector<S>& v) const {
  Output<S> out;
  out.o.assign(static_cast<size_t>(queries * heads * vd), S(0));
  std::vector<S> p;
  for (int64_t t = 0; t < queries; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      out.lse.push_back(probabilities(q, k, t, h, p));
      for (size_t j = 0; j < p.size(); ++j)
        for (int64_t c = 0; c < vd; ++c)
          out.o[at(t, heads, h, vd, c)] += p[j] * v[at(first_key[static_cast<size_t>(t)] + static_cast<int64_t>(j),
                                                       kv_heads, h / (heads / kv_heads), vd, c)];
    }
  }
  return out;
}

Attention::Gradients Attention::backward(const std::vector<double>& q, const std::vector<double>& k,
                                         const std::vector<double>& v, const std::vector<double>& d_o) const {
  Gradients r;
  for (auto* x : {&r.dq, &r.size_dq}) x->assign(q.size(), 0);
  for (auto* x : {&r.dk, &r.size_dk}) x->assign(k.size(), 0);
  for (auto* x : {&r.dv, &r.size_dv}) x->assign(v.size(), 0);
  std::vector<double> p, dp;
  for (int64_t t = 0; t < queries; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t g = h / (heads / kv_heads), first = first_key[static_cast<size_t>(t)];
      probabilities(q, k, t, h, p);
      dp.assign(p.size(), 0);
      double mean = 0, mean_size = 0;
      for (size_t j = 0; j < p.size(); ++j) {
        for (int64_t c = 0; c < vd; ++c) {
          const double term = d_o[at(t, heads, h, vd, c)] * v[at(first + static_cast<int64_t>(j), kv_heads, g, vd, c)];
          dp[j] += term;
          mean_size += p[j] * std::abs(term);
        }
        mean += p[j] * dp[j];
      }
      for (size_t j = 0; j < p.size(); ++j) {
        const int64_t key = first + static_cast<int64_t>(j);
        const double ds = scale * p[j] * (dp[j] - mean), size = scale * p[j] * (std::abs(dp[j]) + mean_size);
        for (int64_t c = 0; c < qk; ++c) {
          const size_t iq = at(t, heads, h, qk, c), ik = at(key, kv_heads, g, qk, c);
          r.dq[iq] += ds * k[ik], r.size_dq[iq] += size * std::abs(k[ik]);
          r.dk[ik] += ds * q[iq], r.size_dk[ik] += size * std::abs(q[iq]);
        }
        for (int64_t c = 0; c < vd; ++c) {
          const double term = p[j] * d_o[at(t, heads, h, vd, c)];
          r.dv[at(key, kv_heads, g, vd, c)] += term, r.size_dv[at(key, kv_heads, g, vd, c)] += std::abs(term);
        }
      }
    }
  }
  return r;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                  \
  template Attention::Output<S> Attention::forward(const std::vector<S>&, const std::vector<S>&, \
                                                   const std::vector<S>&) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
