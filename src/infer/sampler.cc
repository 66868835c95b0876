#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::infer {

void validate(const SamplerOptions& o) {
  const auto require = [](bool ok, const char* name, const char* range, double v) {
    if (!ok)
      throw Error("sampling", std::string(name) + ": " + range + ", got " + std::to_string(v), "", ExitCode::usage);
  };
  require(o.temperature >= 0 && std::isfinite(o.temperature), "temp", "must not be negative", o.temperature);
  require(o.top_k >= 0, "top-k", "must not be negative", static_cast<double>(o.top_k));
  require(o.top_p > 0 && o.top_p <= 1, "top-p", "must be in (0, 1]", o.top_p);
  require(o.min_p >= 0 && o.min_p <= 1, "min-p", "must be in [0, 1]", o.min_p);
}

int32_t sample(std::span<const float> logits, const SamplerOptions& o, uint64_t index) {
  BK_CHECK(!logits.empty());
  if (o.temperature == 0) return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (o.top_k > 0 && o.top_k < static_cast<int64_t>(order.size())) order.resize(static_cast<size_t>(o.top_k));
  const double top = logits[static_cast<size_t>(order[0])];
  std::vector<double> p;
  double sum = 0;
  for (const int32_t id : order) {
    p.push_back(std::exp((logits[static_cast<size_t>(id)] - top) / o.temperature));
    sum += p.back();
  }
  size_t keep = 0;
  double mass = 0;
  while (keep < p.size() && (keep == 0 || (p[keep] > 0 && mass < o.top_p * sum && p[keep] >= o.min_p)))
    mass += p[keep++];
  double u = Rng(o.seed, 0x5a3b1e).uniform(index) * mass;
  for (size_t i = 0; i < keep; ++i) {
    u -= p[i];
    if (u < 0) return order[i];
  }
  return order[keep - 1];
}

}  // namespace birkhoff::infer
