#include "infer/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
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
  require(o.typical_p > 0 && o.typical_p <= 1, "typical-p", "must be in (0, 1]", o.typical_p);
}

namespace {

// Ids by a strict order of theirs, in order only as far as they are asked for.
template <class Ahead>
class Ranking {
 public:
  Ranking(std::span<int32_t> ids, Ahead ahead) : ids_(ids), ahead_(ahead) {}
  int32_t operator[](size_t rank) {
    if (rank >= ordered_) order(std::max({rank + 1, size_t{64}, 4 * ordered_}));
    return ids_[rank];
  }
  void order(size_t count) {
    count = std::min(count, ids_.size());
    if (count <= ordered_) return;
    const auto at = [this](size_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (count < ids_.size()) std::nth_element(at(ordered_), at(count), ids_.end(), ahead_);
    std::sort(at(ordered_), at(count), ahead_);
    ordered_ = count;
  }

 private:
  std::span<int32_t> ids_;
  Ahead ahead_;
  size_t ordered_ = 0;
};

// By falling logit, the lower id of equals first.
auto by_logit(std::span<const float> logits) {
  return [logits](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
}

// The same of all ids by logit, without a look at most of them: whoever is among the `count` largest is no smaller than
// the count-th largest of the maxima of blocks.
class LargestFirst {
 public:
  LargestFirst(std::span<const float> logits, std::vector<int32_t>& ids) : logits_(logits), ids_(ids) {
    for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
      float most = -INFINITY;
      for (const float x : logits.subspan(begin, std::min(kBlock, logits.size() - begin))) most = x > most ? x : most;
      maxima_.push_back(most);
    }
  }
  int32_t operator[](size_t rank) {
    if (rank >= ordered_) order(std::max({rank + 1, size_t{64}, 4 * ordered_}));
    return ids_[rank];
  }
  // The first `count` in front of the ids given to the constructor.
  void order(size_t count) {
    count = std::min(count, logits_.size());
    if (count <= ordered_) return;
    gather(count);
    Ranking(std::span(ids_), by_logit(logits_)).order(count);
    ordered_ = count;
  }

 private:
  static constexpr size_t kBlock = 64;
  void gather(size_t count) {
    ids_.resize(logits_.size());
    if (count > maxima_.size()) return std::iota(ids_.begin(), ids_.end(), 0);
    std::vector<float> maxima = maxima_;
    const auto last = maxima.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(maxima.begin(), last, maxima.end(), std::greater<>());
    size_t kept = 0;
    for (size_t block = 0; block < maxima_.size(); ++block) {
      if (maxima_[block] < *last) continue;
      for (size_t i = block * kBlock; i < std::min((block + 1) * kBlock, logits_.size()); ++i)
        if (logits_[i] >= *last) ids_[kept++] = static_cast<int32_t>(i);
    }
    ids_.resize(kept);
  }

  std::span<const float> logits_;
  std::vector<int32_t>& ids_;
  std::vector<float> maxima_;
  size_t ordered_ = 0;
};

// The probability of an id as a part of the largest.
struct Weight {
  std::span<const float> logits;
  double top, temperature;
  double log(int32_t id) const { return (logits[static_cast<size_t>(id)] - top) / temperature; }
  double operator()(int32_t id) const { return std::exp(log(id)); }
};

// e^x for x <= 0, to kExpError of itself: the series of 2^f around the nearest whole power.
constexpr double kExpError = 2e-11;
double fast_exp(double x) {
  constexpr double kWhole = 0x1.8p52;  // added to a number it leaves the number rounded in the low bits
  const double t = std::max(x, -700.0) * 1.4426950408889634, n = (t + kWhole) - kWhole,
               y = (t - n) * 0.6931471805599453;
  const double y2 = y * y, y4 = y2 * y2;
  const double low = (1 + y) + y2 * (1.0 / 2 + y * (1.0 / 6));
  const double high = (1.0 / 24 + y * (1.0 / 120)) + y2 * (1.0 / 720 + y * (1.0 / 5040));
  const double p = low + y4 * (high + y4 * (1.0 / 40320 + y * (1.0 / 362880)));
  return p * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

// What top-k, top-p and min-p leave: the first `count` of a ranking, and the sum of their weights. slack: how far sums
// may be from those in order of rank; 0 for these.
struct Kept {
  size_t count;
  double mass, slack;
};

// The limits are defined by sums from the largest weight down. Summed as the ids stand they are off by roundings: what
// these could decide gives nothing, and is done again with sums in order (`exact`).
std::optional<Kept> limit(LargestFirst& ranking, const Weight& p, const SamplerOptions& o, bool exact) {
  const size_t all = p.logits.size();
  const size_t count = o.top_k > 0 && o.top_k < static_cast<int64_t>(all) ? static_cast<size_t>(o.top_k) : all;
  const bool ordered = exact || count < all;
  double sum = 0;
  if (ordered) ranking.order(count);
  for (size_t i = 0; i < count; ++i) sum += ordered ? p(ranking[i]) : fast_exp(p.log(static_cast<int32_t>(i)));
  // More than two orders of summing, and a subtraction for every term, may differ by.
  const double rounding = 4 * static_cast<double>(count) * std::numeric_limits<double>::epsilon();
  const double slack = ordered ? 0 : (kExpError + rounding) * sum;
  if (!(ordered || o.top_p < 1 || o.min_p > 0)) return Kept{count, sum, slack};

  Kept kept{0, 0, slack};
  for (; kept.count < count; ++kept.count) {
    const double next = p(ranking[kept.count]);
    if (kept.count > 0 && !(next > 0 && next >= o.min_p)) break;
    if (kept.count > 0 && (ordered || o.top_p < 1)) {
      if (!ordered && std::fabs(kept.mass - o.top_p * sum) <= slack) return std::nullopt;
      if (kept.mass >= o.top_p * sum) break;
    }
    kept.mass += next;
  }
  return kept;
}

// Leaves the typical of the first `count` ids, by falling logit, and says what they are. All sums of the limit itself
// are in order of ids.
Kept typical(std::vector<int32_t>& kept, size_t count, const Weight& p, double typical_p) {
  kept.resize(count);
  if (count == p.logits.size())
    std::iota(kept.begin(), kept.end(), 0);
  else
    std::sort(kept.begin(), kept.end());
  std::span<int32_t> ids = kept;
  ids = {ids.begin(), std::remove_if(ids.begin(), ids.end(), [&](int32_t id) { return p(id) == 0; })};
  double sum = 0, entropy = 0;
  for (const int32_t id : ids) sum += p(id);
  const double norm = std::log(sum);
  for (const int32_t id : ids) entropy -= p(id) / sum * (p.log(id) - norm);

  const auto distance = [&](int32_t id) { return std::fabs(norm - p.log(id) - entropy); };
  Ranking nearest(ids, [&](int32_t a, int32_t b) {
    const double x = distance(a), y = distance(b);
    return x < y || (x == y && a < b);
  });
  double mass = 0;
  size_t last = 0;
  for (; last < ids.size(); ++last) {
    mass += p(nearest[last]) / sum;
    if (mass >= typical_p) break;
  }
  // Ids as far away as the last are as typical.
  const double most = distance(ids[std::min(last, ids.size() - 1)]);
  ids = {ids.begin(), std::partition(ids.begin(), ids.end(), [&](int32_t id) { return distance(id) <= most; })};
  std::sort(ids.begin(), ids.end(), by_logit(p.logits));
  mass = 0;
  for (const int32_t id : ids) mass += p(id);
  return {ids.size(), mass, 0};
}

// The id at u of [0, 1) of the kept ones' mass, from the largest weight down.
template <class Ranked>
std::optional<int32_t> pick(Ranked& ranking, const Kept& kept, const Weight& p, double u) {
  double left = u * kept.mass;
  for (size_t i = 0; i < kept.count; ++i) {
    left -= p(ranking[i]);
    if (kept.slack > 0 && std::fabs(left) <= kept.slack) return std::nullopt;
    if (left < 0) return ranking[i];
  }
  return kept.slack > 0 ? std::nullopt : std::optional(ranking[kept.count - 1]);
}

std::optional<int32_t> draw(std::span<const float> logits, const SamplerOptions& o, double u, bool exact,
                            std::vector<int32_t>& buffer) {
  LargestFirst ranking(logits, buffer);
  const Weight p{logits, logits[static_cast<size_t>(ranking[0])], o.temperature};
  const std::optional<Kept> kept = limit(ranking, p, o, exact);
  if (!kept) return std::nullopt;
  if (o.typical_p == 1) return pick(ranking, *kept, p, u);
  const Kept fewer = typical(buffer, kept->count, p, o.typical_p);
  return pick(buffer, fewer, p, u);
}

// Orders of ids are none with numbers that are none.
void require_drawable(std::span<const float> logits) {
  bool any = false, wrong = false;
  for (const float x : logits) any |= x > -INFINITY, wrong |= !(x < INFINITY);
  if (any && !wrong) return;
  const auto it = std::find_if_not(logits.begin(), logits.end(), [](float x) { return x < INFINITY; });
  if (it != logits.end())
    throw Error("sampling", "the logit of id " + std::to_string(it - logits.begin()) + " is " + std::to_string(*it),
                "weights or activations of the model are not finite");
  throw Error("sampling", "no id of " + std::to_string(logits.size()) + " can be drawn: all logits are -inf");
}

int32_t largest_of(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplerOptions& o, uint64_t index, std::vector<int32_t>& buffer) {
  require_drawable(logits);
  if (o.temperature == 0) return largest_of(logits);
  const double u = Rng(o.seed, 0x5a3b1e).uniform(index);
  const std::optional<int32_t> id = draw(logits, o, u, false, buffer);
  return id ? *id : *draw(logits, o, u, true, buffer);
}

void probabilities(std::span<const float> logits, const SamplerOptions& o, std::vector<int32_t>& buffer,
                   std::span<double> out) {
  require_drawable(logits);
  std::fill(out.begin(), out.end(), 0.0);
  if (o.temperature == 0) {
    out[static_cast<size_t>(largest_of(logits))] = 1;
    return;
  }
  LargestFirst ranking(logits, buffer);
  const Weight p{logits, logits[static_cast<size_t>(ranking[0])], o.temperature};
  std::optional<Kept> kept = limit(ranking, p, o, false);
  if (!kept) kept = limit(ranking, p, o, true);
  if (o.typical_p < 1) kept = typical(buffer, kept->count, p, o.typical_p);
  const bool all = kept->count == logits.size();
  double mass = 0;
  for (size_t i = 0; i < kept->count; ++i) {
    const int32_t id = all ? static_cast<int32_t>(i) : buffer[i];
    mass += out[static_cast<size_t>(id)] = p(id);
  }
  for (double& x : out) x /= mass;
}

void largest(std::span<const float> logits, size_t count, std::vector<int32_t>& buffer) {
  LargestFirst(logits, buffer).order(count);
}

}  // namespace birkhoff::infer
