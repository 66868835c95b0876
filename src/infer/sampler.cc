#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

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

namespace {

// Ids by falling logit, the lower id of equals first, ordered only as far as they are asked for.
class Ranking {
 public:
  Ranking(std::span<const float> logits, std::vector<int32_t>& ids) : logits_(logits), ids_(ids) {
    ids_.resize(logits.size());
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  int32_t operator[](size_t rank) {
    if (rank >= ordered_) order(std::max({rank + 1, size_t{64}, 4 * ordered_}));
    return ids_[rank];
  }
  void order(size_t count) {
    count = std::min(count, ids_.size());
    if (count <= ordered_) return;
    const auto ahead = [this](int32_t a, int32_t b) {
      const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    };
    const auto at = [this](size_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (count < ids_.size()) std::nth_element(at(ordered_), at(count), ids_.end(), ahead);
    std::sort(at(ordered_), at(count), ahead);
    ordered_ = count;
  }

 private:
  std::span<const float> logits_;
  std::vector<int32_t>& ids_;
  size_t ordered_ = 0;
};

// One draw at u of [0, 1). It is defined by sums from the largest probability down. Summed as the logits stand they are
// off by roundings: a draw that these could decide gives nothing, and is made again with sums in order (`exact`).
std::optional<int32_t> draw(std::span<const float> logits, const SamplerOptions& o, double u, bool exact,
                            std::vector<int32_t>& buffer) {
  Ranking ranking(logits, buffer);
  const size_t all = logits.size();
  const size_t count = o.top_k > 0 && o.top_k < static_cast<int64_t>(all) ? static_cast<size_t>(o.top_k) : all;
  const double top = logits[static_cast<size_t>(ranking[0])];
  const auto p = [&](int32_t id) { return std::exp((logits[static_cast<size_t>(id)] - top) / o.temperature); };
  const bool ordered = exact || count < all;
  double sum = 0;
  if (ordered) ranking.order(count);
  for (size_t i = 0; i < count; ++i) sum += p(ordered ? ranking[i] : static_cast<int32_t>(i));
  // More than two orders of summing, and a subtraction for every term, may differ by.
  const double slack = ordered ? 0 : 4 * static_cast<double>(count) * std::numeric_limits<double>::epsilon() * sum;

  size_t keep = count;
  double mass = sum;
  if (ordered || o.top_p < 1 || o.min_p > 0) {
    keep = 0, mass = 0;
    for (; keep < count; ++keep) {
      const double next = p(ranking[keep]);
      if (keep > 0 && !(next > 0 && next >= o.min_p)) break;
      if (keep > 0 && (ordered || o.top_p < 1)) {
        if (!ordered && std::fabs(mass - o.top_p * sum) <= slack) return std::nullopt;
        if (mass >= o.top_p * sum) break;
      }
      mass += next;
    }
  }
  double left = u * mass;
  for (size_t i = 0; i < keep; ++i) {
    left -= p(ranking[i]);
    if (!ordered && std::fabs(left) <= slack) return std::nullopt;
    if (left < 0) return ranking[i];
  }
  return ordered ? std::optional(ranking[keep - 1]) : std::nullopt;
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplerOptions& o, uint64_t index, std::vector<int32_t>& buffer) {
  BK_CHECK(!logits.empty());
  if (o.temperature == 0) return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const double u = Rng(o.seed, 0x5a3b1e).uniform(index);
  const std::optional<int32_t> id = draw(logits, o, u, false, buffer);
  return id ? *id : *draw(logits, o, u, true, buffer);
}

void largest(std::span<const float> logits, size_t count, std::vector<int32_t>& buffer) {
  Ranking(logits, buffer).order(count);
}

}  // namespace birkhoff::infer
