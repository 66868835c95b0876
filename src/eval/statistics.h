// Means of scores with their errors, and differences of two models over the same documents.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace birkhoff::eval {

// stderr: sample standard deviation / sqrt(n); none for n = 1 (spec of the harness: "N/A"). Without scores the mean is
// NaN.
struct MeanScore {
  double mean = 0;
  std::optional<double> stderr_;
  int64_t n = 0;
};
MeanScore mean_score(std::span<const double> scores);
// Of a group, weighted by documents; the error pools the variances within its tasks, sqrt(sum (n_i - 1) n_i se_i^2 /
// (sum n_i - k) / sum n_i), none when a task has none.
MeanScore pooled_score(std::span<const MeanScore> tasks);

// b - a over paired documents. Of scores 0 and 1 the interval is that of Agresti and Min (2005): half a document is
// added to each of the four counts. Of others it is between percentiles of the means of 2000 resamples of documents
// (bootstrap; widened by sqrt(n / (n - 1))), a function of the scores and the seed. The corrected bootstrap (BCa)
// covers less here: the differences of two models have heavy tails on both sides. NaN where there are too few
// documents: the error and the bootstrap below 2, everything without any.
struct PairedDifference {
  double mean = 0, stderr_ = 0, low = 0, high = 0;  // interval of 95 %
  int64_t n = 0, a_alone = 0, b_alone = 0;          // of scores 0 and 1: documents that one alone has right
  std::optional<double> mcnemar;                    // p, exact; of scores 0 and 1
};
// As many scores in a as in b, in the same order of documents.
PairedDifference paired_difference(std::span<const double> a, std::span<const double> b, uint64_t seed = 1234);

}  // namespace birkhoff::eval
