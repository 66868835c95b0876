// How much the choice of experts says about the domain of a token: mutual information of (expert, domain), and what
// chance alone gives.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace birkhoff::lab {

// counts [domains * experts], row-major: choices of each expert by the tokens of each domain; every row has a positive
// sum. In bits:
//   I = sum_{e,d} p(e,d) log2(p(e,d) / (p(e) p(d)))    p(e,d) = counts[d][e] / (domains * sum of row d),
// so every domain weighs the same, however many tokens it has. 0: experts do not distinguish domains; log2(domains):
// each serves one alone.
double mutual_information(std::span<const double> counts, int64_t domains, int64_t experts);

// Choices of a piece of text that is shuffled as a whole: a document, or a part of a long one.
struct Unit {
  int64_t domain = 0;
  std::vector<int32_t> loads;  // [layers * experts]
};
struct UnitLoads {
  int64_t domains = 0, layers = 0, experts = 0;
  std::vector<Unit> units;
};

// Information of every layer.
std::vector<double> information(const UnitLoads& loads);

// The same when the domains of the units are shuffled: each keeps its number of units. Of `shuffles` permutations drawn
// from the seed.
struct ShuffledInformation {
  double mean = 0, high = 0, max = 0;  // high: 95 % of the shuffles are not above it
};
// Of every layer, which are shuffled together. shuffles >= 1.
std::vector<ShuffledInformation> shuffled_information(const UnitLoads& loads, int64_t shuffles, uint64_t seed);

}  // namespace birkhoff::lab
