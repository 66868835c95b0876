#include "eval/scoring/choices.h"

#include <cmath>

#include "text/jinja/characters.h"

namespace birkhoff::eval {
namespace {

double choice_value(ChoiceMetric metric, const Choices& c, size_t i) {
  const double ll = c.loglikelihoods[i];
  switch (metric) {
    case ChoiceMetric::acc_norm:
      return ll / static_cast<double>(text::chat::utf8_count(c.texts[i]));
    case ChoiceMetric::acc_bytes:
      return ll / static_cast<double>(c.texts[i].size());
    case ChoiceMetric::acc_mutual_info:
      return ll - c.alone[i];
    case ChoiceMetric::acc:
      break;
  }
  return ll;
}

}  // namespace

int64_t chosen(ChoiceMetric metric, const Choices& choices) {
  size_t best = 0;
  double greatest = choice_value(metric, choices, 0);
  for (size_t i = 1; i < choices.texts.size() && !std::isnan(greatest); ++i) {
    const double v = choice_value(metric, choices, i);
    if (std::isnan(v) || v > greatest) {
      greatest = v;
      best = i;
    }
  }
  return static_cast<int64_t>(best);
}

}  // namespace birkhoff::eval
