#include "ops/experts/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/experts/router_scores.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kRoutingTokens = 64;
constexpr int64_t kMaxExperts = 1024;
constexpr float kNegative = -std::numeric_limits<float>::infinity();

void check_rule(const RouterRule& r) {
  BK_CHECK(r.experts >= 1 && r.experts <= kMaxExperts);
  BK_CHECK(r.active >= 1 && r.active <= r.experts);
  BK_CHECK(r.groups >= 1 && r.experts % r.groups == 0);
  BK_CHECK(r.active_groups >= 1 && r.active_groups <= r.groups);
  BK_CHECK(r.masked >= 0);
  if (r.masked) BK_CHECK_LE(r.masked + r.active, r.active_groups * (r.experts / r.groups));
}

template <class F>
void for_tokens(const Exec& exec, int64_t tokens, F&& f) {
  exec.parallel_for((tokens + kRoutingTokens - 1) / kRoutingTokens, [&](int64_t task) {
    for (int64_t t = task * kRoutingTokens; t < std::min(tokens, (task + 1) * kRoutingTokens); ++t) f(t);
  });
}

// Index of the largest entry not yet taken; the lower index wins a tie. Taken entries are NaN: they lose every
// comparison.
int64_t best_of(const float* v, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i)
    if (v[i] == v[i] && (best < 0 || v[i] > v[best])) best = i;
  return best < 0 ? 0 : best;
}
constexpr float kTaken = std::numeric_limits<float>::quiet_NaN();

// Group score: softmax rules take the best member, biased rules the sum of the two best (models.md D.5, E.2).
float group_score(const float* v, int64_t n, bool sum_of_two) {
  float first = kNegative, second = kNegative;
  for (int64_t i = 0; i < n; ++i) {
    if (v[i] > first) {
      second = first;
      first = v[i];
    } else if (v[i] > second) {
      second = v[i];
    }
  }
  return sum_of_two && n > 1 ? first + second : first;
}

// Experts outside the best groups drop to -inf.
void mask_groups(const RouterRule& r, float* choice) {
  if (r.active_groups == r.groups) return;
  const int64_t size = r.experts / r.groups;
  float score[kMaxExperts];
  bool kept[kMaxExperts] = {};
  for (int64_t g = 0; g < r.groups; ++g) score[g] = group_score(choice + g * size, size, r.bias);
  for (int64_t i = 0; i < r.active_groups; ++i) {
    const int64_t g = best_of(score, r.groups);
    kept[g] = true;
    score[g] = kTaken;
  }
  for (int64_t g = 0; g < r.groups; ++g)
    if (!kept[g]) std::fill(choice + g * size, choice + (g + 1) * size, kNegative);
}

// The experts of highest affinity drop to -inf.
void mask_best(const RouterRule& r, const float* scores, float* choice) {
  float left[kMaxExperts];
  std::copy(scores, scores + r.experts, left);
  for (int64_t i = 0; i < r.masked; ++i) {
    const int64_t e = best_of(left, r.experts);
    left[e] = kTaken;
    choice[e] = kNegative;
  }
}

void choose(const RouterRule& r, const float* scores, const float* bias, int32_t* index) {
  float choice[kMaxExperts];
  for (int64_t e = 0; e < r.experts; ++e) choice[e] = scores[e] + (bias ? bias[e] : 0.f);
  if (r.masked) mask_best(r, scores, choice);
  mask_groups(r, choice);
  for (int64_t k = 0; k < r.active; ++k) {
    const int64_t e = best_of(choice, r.experts);
    index[k] = static_cast<int32_t>(e);
    choice[e] = kTaken;
  }
  std::sort(index, index + r.active);
}

// Expert-major rows, tokens ascending: a counting sort.
void lay_out_rows(const RouterRule& rule, int64_t tokens, Routing& r) {
  std::fill(r.count.begin(), r.count.end(), 0);
  for (const int32_t e : r.index) ++r.count[static_cast<size_t>(e)];
  r.offsets[0] = 0;
  for (size_t e = 0; e < r.count.size(); ++e) r.offsets[e + 1] = r.offsets[e] + r.count[e];
  int32_t next[kMaxExperts];
  std::copy(r.offsets.begin(), r.offsets.end() - 1, next);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < rule.active; ++k) {
      const auto slot = static_cast<size_t>(t * rule.active + k);
      const int32_t row = next[r.index[slot]]++;
      r.slot_row[slot] = row;
      r.token[static_cast<size_t>(row)] = static_cast<int32_t>(t);
    }
  }
}

}  // namespace

Routing Routing::take(Arena& a, int64_t tokens, int64_t experts, int64_t active) {
  const auto ints = [&](int64_t n) { return std::span<int32_t>(a.take<int32_t>(n), static_cast<size_t>(n)); };
  Routing r;
  r.scores = a.mat(f32_t, tokens, experts);
  r.weights = a.mat(f32_t, tokens, active);
  r.index = ints(tokens * active);
  r.count = ints(experts);
  r.offsets = ints(experts + 1);
  r.token = ints(tokens * active);
  r.slot_row = ints(tokens * active);
  return r;
}

namespace {

// choose(token, scores, index) writes the K chosen experts, ascending.
template <class Choose>
void route(const Exec& exec, const RouterRule& rule, CMat logits, Routing& r, Choose&& choose_experts) {
  Exec::Span span(exec, Work::routing);
  for_tokens(exec, logits.rows, [&](int64_t t) {
    float* s = r.scores.f32(t);
    router_scores(rule.scoring, logits.f32(t), rule.experts, s);
    int32_t* index = r.index.data() + t * rule.active;
    choose_experts(t, s, index);
    float sum = 0;
    for (int64_t k = 0; k < rule.active; ++k) sum += s[index[k]];
    const float factor = rule.normalise ? rule.scaling / (sum + 1e-20f) : rule.scaling;
    for (int64_t k = 0; k < rule.active; ++k) r.weights.f32(t)[k] = s[index[k]] * factor;
  });
  lay_out_rows(rule, logits.rows, r);
}

void check_routing(const RouterRule& rule, CMat logits, const Routing& r) {
  check_rule(rule);
  check_shape(r.scores, logits.rows, rule.experts);
  check_shape(logits, r.scores.rows, rule.experts);
  check_shape(r.weights, logits.rows, rule.active);
}

}  // namespace

void route_forward(const Exec& exec, const RouterRule& rule, CMat logits, CMat bias, Routing& r) {
  check_routing(rule, logits, r);
  BK_CHECK_EQ(rule.bias, bias.data != nullptr || (exec.dry() && rule.bias));
  if (exec.dry()) return;
  route(exec, rule, logits, r,
        [&](int64_t, const float* s, int32_t* index) { choose(rule, s, rule.bias ? bias.f32() : nullptr, index); });
}

void route_given(const Exec& exec, const RouterRule& rule, CMat logits, CMat experts, Routing& r) {
  check_routing(rule, logits, r);
  check_shape(experts, logits.rows, rule.active);
  if (exec.dry()) return;
  route(exec, rule, logits, r, [&](int64_t t, const float*, int32_t* index) {
    for (int64_t k = 0; k < rule.active; ++k) {
      const float e = experts.f32(t)[k];
      BK_CHECK(e >= 0 && e < static_cast<float>(rule.experts));
      index[k] = static_cast<int32_t>(e);
    }
    std::sort(index, index + rule.active);
  });
}

void route_backward(const Exec& exec, const RouterRule& rule, CMat logits, const Routing& r, CMat d_weights,
                    Mat d_logits) {
  check_rule(rule);
  check_shape(d_weights, logits.rows, rule.active);
  check_shape(d_logits, logits.rows, rule.experts);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::routing);
  for_tokens(exec, logits.rows, [&](int64_t t) {
    const float* s = r.scores.f32(t);
    const int32_t* index = r.index.data() + t * rule.active;
    const float* dw = d_weights.f32(t);
    float d_scores[kMaxExperts] = {};
    float sum = 0, dot = 0;  // of the chosen scores; of dw with them
    for (int64_t k = 0; k < rule.active; ++k) {
      sum += s[index[k]];
      dot += dw[k] * s[index[k]];
    }
    const float denominator = sum + 1e-20f;
    for (int64_t k = 0; k < rule.active; ++k)
      d_scores[index[k]] += rule.scaling * (rule.normalise ? (dw[k] - dot / denominator) / denominator : dw[k]);
    router_scores_backward(rule.scoring, logits.f32(t), s, d_scores, rule.experts, d_logits.f32(t),
                           /*accumulate=*/false);
  });
}

}  // namespace birkhoff::ops
