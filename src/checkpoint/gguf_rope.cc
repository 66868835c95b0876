#include "checkpoint/gguf_rope.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numbers>

namespace birkhoff::checkpoint {
namespace {

using nlohmann::json;
using Kind = ops::RopeScaling::Kind;

double yarn_factor(const GgufKeys& k) {
  const auto factor = k.number("rope.scaling.factor");
  if (!factor) k.fail("rope.scaling.factor", " is missing, scaling of type yarn needs it");
  return *factor;
}

void require_one(const GgufKeys& k, const char* name) {
  if (const double v = k.number(name).value_or(1); v != 1 && v != -1)
    k.fail(name, " is " + std::to_string(v) + ", only 1 is supported");
}

json yarn(const GgufKeys& k) {
  for (const char* name : {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"}) require_one(k, name);
  return {{"type", "yarn"},
          {"factor", yarn_factor(k)},
          {"original_max_position_embeddings", k.size("rope.scaling.original_context_length")},
          {"beta_fast", k.number("rope.scaling.yarn_beta_fast").value_or(32)},
          {"beta_slow", k.number("rope.scaling.yarn_beta_slow").value_or(1)}};
}

std::string scaling_type(const GgufKeys& k) { return k.text("rope.scaling.type").value_or("linear"); }

[[noreturn]] void unknown_type(const GgufKeys& k, const std::string& known) {
  k.fail("rope.scaling.type", " is \"" + scaling_type(k) + "\", " + known + " are supported");
}

std::vector<double> read_factors(const GgufKeys& k, const io::GgufTensor& t, int64_t dim) {
  const std::string name = kGgufRopeFactors;
  if (t.type->id != 0) k.file.fail(name + " is of type " + t.type->name + ", F32 was expected");
  if (t.dim_count != 1 || t.dims[0] != dim / 2)
    k.file.fail(name + " has " + std::to_string(t.dims[0]) + " numbers, heads rotate " + std::to_string(dim / 2) +
                " pairs");
  std::vector<double> factors;
  for (size_t i = 0; i < t.bytes; i += sizeof(float)) {
    float v = 0;
    std::memcpy(&v, t.data + i, sizeof v);
    if (!(v > 0) || !std::isfinite(v))
      k.file.fail(name + ": number " + std::to_string(factors.size()) + " is " + std::to_string(v));
    factors.push_back(v);
  }
  return factors;
}

// Whether `s` says these factors, to the rounding of fp32.
bool gives(const std::vector<double>& factors, double theta, const ops::RopeScaling& s) {
  if (!(s.low_freq_factor > 0) || !(s.high_freq_factor > s.low_freq_factor) || s.original_max_position < 1)
    return false;
  const std::vector<float> got = gguf_rope_factors(2 * static_cast<int64_t>(factors.size()), theta, s);
  for (size_t i = 0; i < factors.size(); ++i)
    if (std::abs(static_cast<double>(got[i]) - factors[i]) > 2e-6 * factors[i]) return false;
  return true;
}

struct PairShare {
  double turns, share;  // a position; of its own frequency, 0 to 1
};

// The share of a pair is a turns - b between 0 and 1, with a = original / (high - low) and b = low / (high - low).
struct ShareLine {
  double a, b;
};
ShareLine through(const PairShare& p, const PairShare& q) {
  const double a = (p.share - q.share) / (p.turns - q.turns);
  return {a, a * p.turns - p.share};
}

// Lines that may have made the factors: through two mixed pairs; of a single one where high is 4 low, or through the
// pair beside it that is kept or slowed as a whole; without any through those two. One of the last gives every pair its
// share.
std::vector<ShareLine> share_lines(const std::vector<double>& factors, double theta, double slowest) {
  const std::vector<double> frequencies = ops::rope_frequencies(2 * static_cast<int64_t>(factors.size()), theta, {});
  std::vector<PairShare> kept, mixed, slowed;
  for (size_t i = 0; i < factors.size(); ++i) {
    const PairShare p{frequencies[i] / (2 * std::numbers::pi), (1 / factors[i] - 1 / slowest) / (1 - 1 / slowest)};
    (factors[i] == 1 ? kept : factors[i] == slowest ? slowed : mixed).push_back(p);
  }
  if (mixed.size() > 1) return {through(mixed.front(), mixed.back())};
  std::vector<ShareLine> lines;
  if (mixed.size() == 1) {
    const double a = (mixed[0].share + 1. / 3) / mixed[0].turns;
    lines.push_back({a, 1. / 3});
  }
  std::vector<PairShare> beside;
  if (!kept.empty()) beside.push_back(kept.back());
  if (!slowed.empty()) beside.push_back(slowed.front());
  if (mixed.size() == 1)
    for (const PairShare& p : beside) lines.push_back(through(mixed[0], p));
  else if (beside.size() == 2)
    lines.push_back(through(beside[0], beside[1]));
  return lines;
}

// Which original length is taken does not matter, as a and b stay: the one where low is 1, as in the released models.
ops::RopeScaling of_line(const ShareLine& line, ops::RopeScaling s) {
  s.original_max_position = line.a > 0 && line.b > 0 && line.a / line.b < 1e9 ? std::llround(line.a / line.b) : 0;
  const auto original = static_cast<double>(s.original_max_position);
  s.low_freq_factor = line.b * original / line.a;
  s.high_freq_factor = s.low_freq_factor + original / line.a;
  return s;
}

// To a thousandth, where that says the same.
ops::RopeScaling with_round_turns(ops::RopeScaling s) {
  s.low_freq_factor = std::round(s.low_freq_factor * 1000) / 1000;
  s.high_freq_factor = std::round(s.high_freq_factor * 1000) / 1000;
  return s;
}

json llama3_scaling(const GgufKeys& k, const std::vector<double>& factors, double theta) {
  ops::RopeScaling s;
  s.kind = Kind::llama3;
  s.factor = *std::max_element(factors.begin(), factors.end());
  if (s.factor == 1 && *std::min_element(factors.begin(), factors.end()) == 1) return nullptr;
  s.low_freq_factor = 1, s.high_freq_factor = 4, s.original_max_position = 8192;  // the released models'
  std::vector<ops::RopeScaling> candidates{s};
  for (const ShareLine& line : share_lines(factors, theta, s.factor)) {
    candidates.push_back(with_round_turns(of_line(line, s)));
    candidates.push_back(of_line(line, s));
  }
  const auto found = std::find_if(candidates.begin(), candidates.end(),
                                  [&](const ops::RopeScaling& c) { return gives(factors, theta, c); });
  if (found == candidates.end())
    k.file.fail(std::string(kGgufRopeFactors) + ": these factors of frequencies follow from no settings of Llama 3",
                "other ways of scaling by factors are not supported");
  s = *found;
  return {{"rope_type", "llama3"},
          {"factor", s.factor},
          {"low_freq_factor", s.low_freq_factor},
          {"high_freq_factor", s.high_freq_factor},
          {"original_max_position_embeddings", s.original_max_position}};
}

}  // namespace

json gguf_rope_scaling(const GgufKeys& k, int64_t dim, double theta) {
  const std::string type = scaling_type(k);
  std::optional<double> factor = k.number("rope.scaling.factor");
  if (!factor) factor = k.number("rope.scale_linear");
  json s;
  if (type == "yarn") {
    s = yarn(k);
    if (const double attn = k.number("rope.scaling.attn_factor").value_or(1); attn != 1)
      s["attention_factor"] = attn * ops::yarn_mscale(s["factor"], 1);
  } else if (type == "linear") {
    if (factor && *factor != 0 && *factor != 1) s = {{"type", "linear"}, {"factor", *factor}};
  } else if (type != "none") {
    unknown_type(k, "none, linear and yarn");
  }
  const io::GgufTensor* t = k.model.find(kGgufRopeFactors);
  if (!t) return s;
  json by_factors = llama3_scaling(k, read_factors(k, *t, dim), theta);
  if (by_factors.is_null()) return s;
  if (!s.is_null())
    k.file.fail(std::string(kGgufRopeFactors) + " beside " + k.full("rope.scaling.type") + " " + type +
                ": both at once are not supported");
  return by_factors;
}

json gguf_yarn_scaling(const GgufKeys& k) {
  const std::string type = scaling_type(k);
  const double factor = k.number("rope.scaling.factor").value_or(1);
  if (type == "none" || (type == "linear" && (factor == 0 || factor == 1))) return nullptr;
  if (type != "yarn") unknown_type(k, "none and yarn");
  require_one(k, "rope.scaling.attn_factor");
  return yarn(k);
}

json gguf_latent_rope_scaling(const GgufKeys& k) {
  json s = gguf_yarn_scaling(k);
  if (s.is_null()) return s;
  const std::optional<double> multiplier = k.number("rope.scaling.yarn_log_multiplier");
  if (!multiplier)
    k.fail("rope.scaling.yarn_log_multiplier", " is missing: the softmax scale of the model follows from it",
           "a file of an early converter: convert the model again");
  s["mscale"] = s["mscale_all_dim"] = *multiplier * 10;
  return s;
}

std::vector<float> gguf_rope_factors(int64_t dim, double theta, const ops::RopeScaling& s) {
  const std::vector<double> base = ops::rope_frequencies(dim, theta, {}), scaled = ops::rope_frequencies(dim, theta, s);
  std::vector<float> factors;
  for (size_t i = 0; i < base.size(); ++i) factors.push_back(static_cast<float>(base[i] / scaled[i]));
  return factors;
}

}  // namespace birkhoff::checkpoint
