// Balance losses. With the selection counts as constants every one of them is sum_e c_e mean_t a_te over its group of
// tokens (the batch or a sequence), where a are the affinities normalised per token (softmax scores are that already).
// So the losses that are on collapse into one coefficient per (sequence, expert), and one pass over the tokens gives
// value and gradient.
#include "ops/experts/balance.h"

#include <algorithm>

#include "ops/experts/router_scores.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kBalanceTokens = 128;

// Tokens that chose each expert, in rows [first, last).
std::vector<double> count_choices(const RouterRule& rule, const Routing& r, int64_t first, int64_t last) {
  std::vector<double> count(static_cast<size_t>(rule.experts));
  for (int64_t i = first * rule.active; i < last * rule.active; ++i)
    ++count[static_cast<size_t>(r.index[static_cast<size_t>(i)])];
  return count;
}

// Tokens with at least one expert on each device.
std::vector<double> count_sent(const RouterRule& rule, const BalanceCoefficients& c, const Routing& r, int64_t tokens) {
  std::vector<double> sent(static_cast<size_t>(c.devices));
  const int64_t per_device = rule.experts / c.devices;
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t last = -1;  // indices ascend, so devices do
    for (int64_t k = 0; k < rule.active; ++k) {
      const int64_t d = r.index[static_cast<size_t>(t * rule.active + k)] / per_device;
      if (d != last) ++sent[static_cast<size_t>(d)];
      last = d;
    }
  }
  return sent;
}

// c_e of the losses over all tokens of the layer (models.md C.3, D.6).
std::vector<double> batch_coefficients(const RouterRule& rule, const BalanceCoefficients& c, const Routing& r,
                                       int64_t tokens) {
  const auto E = static_cast<double>(rule.experts), K = static_cast<double>(rule.active),
             T = static_cast<double>(tokens);
  const std::vector<double> count = count_choices(rule, r, 0, tokens);
  std::vector<double> out(count.size());
  for (size_t e = 0; e < count.size(); ++e) out[e] = c.expert * count[e] * E / (K * T);
  if (c.device == 0 && c.communication == 0) return out;
  BK_CHECK(c.devices >= 1 && rule.experts % c.devices == 0);
  const size_t per_device = count.size() / static_cast<size_t>(c.devices);
  const std::vector<double> sent = count_sent(rule, c, r, tokens);
  for (size_t d = 0; d < static_cast<size_t>(c.devices); ++d) {
    double mean = 0;
    for (size_t e = d * per_device; e < (d + 1) * per_device; ++e)
      mean += count[e] * E / (K * T) / static_cast<double>(per_device);
    const double share = sent[d] * static_cast<double>(c.devices) / (static_cast<double>(c.devices_per_token) * T);
    for (size_t e = d * per_device; e < (d + 1) * per_device; ++e) out[e] += c.device * mean + c.communication * share;
  }
  return out;
}

// Value of sum_e w_e a_e for one token, and its gradient on top of d_logits.
double token_loss(const RouterRule& rule, const float* logits, const float* scores, const float* w, float scale,
                  float* d_scores, float* d_logits) {
  float sum = 0, dot = 0;
  for (int64_t e = 0; e < rule.experts; ++e) {
    sum += scores[e];
    dot += w[e] * scores[e];
  }
  const bool normalised = rule.scoring == Scoring::softmax;
  const float value = normalised ? dot : dot / sum;
  for (int64_t e = 0; e < rule.experts; ++e) d_scores[e] = scale * (normalised ? w[e] : (w[e] - value) / sum);
  router_scores_backward(rule.scoring, logits, scores, d_scores, rule.experts, d_logits, /*accumulate=*/true);
  return value;
}

// What a choice of expert e adds per token of any layer to the Mixtral loss.
std::vector<double> pooled_coefficients(const RouterRule& rule, const BalanceCoefficients& c, const BalanceLoss& loss) {
  std::vector<double> out(static_cast<size_t>(rule.experts));
  if (c.mixtral == 0) return out;
  BK_CHECK(loss.chosen.size() == out.size() && loss.tokens > 0);
  const auto N = static_cast<double>(loss.tokens);
  for (size_t e = 0; e < out.size(); ++e)
    out[e] = c.mixtral * static_cast<double>(rule.experts) * static_cast<double>(loss.chosen[e]) / N / N;
  return out;
}

}  // namespace

void pool_choices(const Routing& r, BalanceLoss& loss) {
  loss.chosen.resize(r.count.size());
  for (size_t e = 0; e < r.count.size(); ++e) loss.chosen[e] += r.count[e];
  loss.tokens += r.scores.rows;
}

void balance_losses(const Exec& exec, const RouterRule& rule, const BalanceCoefficients& c, const RoutedTokens& tokens,
                    BalanceLoss& loss, Mat d_logits, Arena& scratch) {
  const CMat logits = tokens.logits;
  const Routing& r = tokens.routing;
  const std::span<const int32_t> sequence_start = tokens.sequence_start;
  const int64_t T = logits.rows, E = rule.experts;
  check_shape(logits, r.scores.rows, E);
  check_shape(d_logits, T, E);
  const auto sequences = static_cast<int64_t>(sequence_start.size());
  Arena::Scope scope(scratch);
  const int64_t tasks = (T + kBalanceTokens - 1) / kBalanceTokens;
  Mat weight = scratch.mat(f32_t, std::max<int64_t>(sequences, 1), E);  // per token of each sequence
  double* partial = scratch.take<double>(std::max<int64_t>(tasks, 1));
  if (exec.dry() || T == 0) return;
  Exec::Span span(exec, Work::routing);
  BK_CHECK(sequences >= 1 && sequence_start[0] == 0);

  const std::vector<double> batch = batch_coefficients(rule, c, r, T), pooled = pooled_coefficients(rule, c, loss);
  const auto end_of = [&](int64_t s) { return s + 1 < sequences ? sequence_start[static_cast<size_t>(s + 1)] : T; };
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t first = sequence_start[static_cast<size_t>(s)], length = end_of(s) - first;
    const std::vector<double> count = count_choices(rule, r, first, end_of(s));
    for (int64_t e = 0; e < E; ++e) {
      const double f =
          count[static_cast<size_t>(e)] * static_cast<double>(E) / static_cast<double>(rule.active * length);
      weight.f32(s)[e] =
          static_cast<float>(batch[static_cast<size_t>(e)] / static_cast<double>(T) + pooled[static_cast<size_t>(e)] +
                             c.sequence * f / static_cast<double>(length * sequences));
    }
  }
  exec.parallel_for(tasks, [&](int64_t task) {
    WorkerScratch mine;
    float* d_scores = mine.take<float>(E);
    double sum = 0;
    for (int64_t t = task * kBalanceTokens; t < std::min(T, (task + 1) * kBalanceTokens); ++t) {
      const auto s = std::upper_bound(sequence_start.begin(), sequence_start.end(), static_cast<int32_t>(t)) -
                     sequence_start.begin() - 1;
      sum += token_loss(rule, logits.f32(t), r.scores.f32(t), weight.f32(s), loss.scale, d_scores, d_logits.f32(t));
    }
    partial[task] = sum;
  });
  double sum = 0;
  for (int64_t i = 0; i < tasks; ++i) sum += partial[i];
  loss.sum += sum;
}

void update_router_bias(std::span<const int64_t> load, double speed, Mat bias) {
  check_shape(bias, 1, static_cast<int64_t>(load.size()));
  int64_t total = 0;
  for (const int64_t c : load) total += c;
  const auto experts = static_cast<int64_t>(load.size());
  for (size_t e = 0; e < load.size(); ++e) {
    const int64_t over = load[e] * experts - total;  // sign of load - mean, exact
    bias.f32()[e] += static_cast<float>(over > 0 ? -speed : over < 0 ? speed : 0.0);
  }
}

double max_violation(std::span<const int64_t> load) {
  int64_t total = 0, most = 0;
  for (const int64_t c : load) {
    total += c;
    most = std::max(most, c);
  }
  return total ? static_cast<double>(most) * static_cast<double>(load.size()) / static_cast<double>(total) - 1 : 0;
}

}  // namespace birkhoff::ops
