// Metrics of chosen answers.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace birkhoff::eval {

enum class ChoiceMetric : uint8_t { acc, acc_norm, acc_bytes, acc_mutual_info };
inline constexpr const char* kChoiceMetrics[] = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info"};

struct Choices {
  std::span<const double> loglikelihoods;
  std::span<const std::string> texts;
  std::span<const double> alone;  // of acc_mutual_info
};
// The choice that a metric takes for the model's: the first of the greatest, as numpy's argmax finds it (a nan is
// greater than all).
int64_t chosen(ChoiceMetric metric, const Choices& choices);

}  // namespace birkhoff::eval
