// Means of scores with their errors, and differences of two models over the same documents.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace birkhoff::eval {

// stderr: sample standard deviation / sqrt(n); none for n = 1 (spec of the harness: "N/A").
struct MeanScore {
  double mean = 0;
  std::optional<double> stderr_;
  int64_t n = 0;
};
MeanScore mean_score(std::span<const double> scores);
// Of a group, weighted by documents; the error pools the variances within its tasks.
MeanScore pooled_score(std::span<const MeanScore> tasks);

// b - a over paired documents.
struct PairedDifference {
  double mean = 0, stderr_ = 0, low = 0, high = 0;  // interval of 95 %
  int64_t n = 0, a_alone = 0, b_alone = 0;          // of scores 0 and 1: documents that one alone has right
  std::optional<double> mcnemar;                    // p, exact; of scores 0 and 1
};
PairedDifference paired_difference(std::span<const double> a, std::span<const double> b, uint64_t seed = 1234);

}  // namespace birkhoff::eval
