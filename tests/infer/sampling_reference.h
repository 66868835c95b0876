// What is drawn from, written down without a thought of cost; and whether draws follow it.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "infer/sampler.h"

namespace birkhoff::test {

inline std::vector<double> softmax_of(const std::vector<double>& l) {
  const double top = *std::max_element(l.begin(), l.end());
  double sum = 0;
  std::vector<double> p;
  for (const double x : l) p.push_back(std::exp(x - top)), sum += p.back();
  for (double& x : p) x /= sum;
  return p;
}

// Typical sampling as transformers' TypicalLogitsWarper: what is not kept becomes -inf.
inline void keep_typical(std::vector<double>& l, double typical_p) {
  const std::vector<double> p = softmax_of(l);
  double entropy = 0, mass = 0;
  for (const double x : p) entropy -= x > 0 ? x * std::log(x) : 0;
  std::vector<std::pair<double, size_t>> distance;
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] > 0) distance.emplace_back(std::fabs(-std::log(p[i]) - entropy), i);
  std::sort(distance.begin(), distance.end());
  size_t last = 0;
  while (last + 1 < distance.size() && (mass += p[distance[last].second]) < typical_p) ++last;
  const double most = distance[last].first;
  for (size_t i = 0; i < l.size(); ++i)
    if (p[i] == 0) l[i] = -INFINITY;
  for (const auto& [far, i] : distance)
    if (far > most * (1 + 1e-12)) l[i] = -INFINITY;
}

// The distribution at temperatures above 0.
inline std::vector<double> sampling_reference(std::span<const float> logits, const infer::SamplerOptions& o) {
  std::vector<double> l;
  for (const float x : logits) l.push_back(x / o.temperature);
  std::vector<size_t> order(l.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (o.top_k > 0)
    for (size_t i = static_cast<size_t>(o.top_k); i < l.size(); ++i) l[order[i]] = -INFINITY;
  std::vector<double> p = softmax_of(l);
  double before = 0;
  for (const size_t i : order) {
    if (before >= o.top_p || p[i] < o.min_p * p[order[0]]) l[i] = -INFINITY;
    before += p[i];
  }
  if (o.typical_p < 1) keep_typical(l, o.typical_p);
  return softmax_of(l);
}

// Pearson's test: so unlikely counts come once in a million.
inline void expect_drawn_from(const std::vector<double>& p, const std::vector<int64_t>& counts) {
  const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  double statistic = 0, freedom = -1;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "id " << i << " cannot be drawn";
      continue;
    }
    const double off = static_cast<double>(counts[i]) - p[i] * draws;
    statistic += off * off / (p[i] * draws);
    ++freedom;
  }
  if (freedom == 0) return;
  const double a = 2 / (9 * freedom), most = freedom * std::pow(1 - a + 4.75 * std::sqrt(a), 3);  // Wilson, Hilferty
  EXPECT_LT(statistic, most) << "of " << freedom << " degrees of freedom";
}

// Every limit alone, and together.
inline std::vector<infer::SamplerOptions> limits_of_sampling() {
  std::vector<infer::SamplerOptions> all;
  for (const double temperature : {0.4, 1.0, 2.5})
    for (const int64_t top_k : {0, 1, 5, 99})
      for (const double top_p : {1.0, 0.7, 0.05})
        for (const double min_p : {0.0, 0.15})
          for (const double typical_p : {1.0, 0.8, 0.2}) {
            infer::SamplerOptions o;
            o.temperature = temperature, o.top_k = top_k, o.top_p = top_p, o.min_p = min_p, o.typical_p = typical_p;
            all.push_back(o);
          }
  return all;
}
inline std::string text_of(const infer::SamplerOptions& o) {
  return "temperature " + std::to_string(o.temperature) + ", top-k " + std::to_string(o.top_k) + ", top-p " +
         std::to_string(o.top_p) + ", min-p " + std::to_string(o.min_p) + ", typical-p " + std::to_string(o.typical_p);
}

}  // namespace birkhoff::test
