// Metric of DROP (Dua et al. 2019, arXiv 1903.00161), as the harness computes it for one predicted span.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace birkhoff::eval {

// Lower case, without punctuation and articles, numbers as floats; tokens separated by single spaces.
std::string drop_normalize(const std::string& span);
// Exact match and F1 of a prediction beside one answer of one or more spans.
std::pair<double, double> drop_scores(const std::string& prediction, const std::vector<std::string>& answer);

}  // namespace birkhoff::eval
