#include "lab/experts/expert_information.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::lab {
namespace {

constexpr double kHigh = 0.95;

// Information of every layer when unit u belongs to domain domain[u].
std::vector<double> information_with(const UnitLoads& loads, const std::vector<int64_t>& domain) {
  const int64_t width = loads.layers * loads.experts;
  std::vector<double> sums(static_cast<size_t>(loads.domains * width));  // [domain][layer][expert]
  for (size_t u = 0; u < loads.units.size(); ++u) {
    double* row = sums.data() + domain[u] * width;
    for (int64_t i = 0; i < width; ++i) row[i] += loads.units[u].loads[static_cast<size_t>(i)];
  }
  std::vector<double> bits, counts(static_cast<size_t>(loads.domains * loads.experts));
  for (int64_t l = 0; l < loads.layers; ++l) {
    for (int64_t d = 0; d < loads.domains; ++d)
      std::copy_n(sums.data() + d * width + l * loads.experts, loads.experts, counts.data() + d * loads.experts);
    bits.push_back(mutual_information(counts, loads.domains, loads.experts));
  }
  return bits;
}

std::vector<int64_t> own_domains(const UnitLoads& loads) {
  std::vector<int64_t> domain;
  for (const Unit& u : loads.units) domain.push_back(u.domain);
  return domain;
}

}  // namespace

double mutual_information(std::span<const double> counts, int64_t domains, int64_t experts) {
  BK_CHECK_EQ(static_cast<int64_t>(counts.size()), domains * experts);
  std::vector<double> of_expert(static_cast<size_t>(experts)), joint(counts.begin(), counts.end());
  for (int64_t d = 0; d < domains; ++d) {
    double* row = joint.data() + d * experts;
    const double sum = std::accumulate(row, row + experts, 0.0);
    BK_CHECK(sum > 0);
    for (int64_t e = 0; e < experts; ++e)
      of_expert[static_cast<size_t>(e)] += row[e] /= sum * static_cast<double>(domains);
  }
  double bits = 0;
  for (int64_t d = 0; d < domains; ++d)
    for (int64_t e = 0; e < experts; ++e)
      if (const double p = joint[static_cast<size_t>(d * experts + e)]; p > 0)
        bits += p * std::log2(p * static_cast<double>(domains) / of_expert[static_cast<size_t>(e)]);
  return bits;
}

std::vector<double> information(const UnitLoads& loads) { return information_with(loads, own_domains(loads)); }

std::vector<ShuffledInformation> shuffled_information(const UnitLoads& loads, int64_t shuffles, uint64_t seed) {
  BK_CHECK(shuffles >= 1);
  std::vector<std::vector<double>> seen(static_cast<size_t>(loads.layers));  // [layer][shuffle]
  for (int64_t s = 0; s < shuffles; ++s) {
    std::vector<int64_t> domain = own_domains(loads);
    const Rng rng(seed, static_cast<uint64_t>(s));
    for (size_t i = domain.size(); i > 1; --i) std::swap(domain[i - 1], domain[rng.bits(i) % i]);
    const std::vector<double> bits = information_with(loads, domain);
    for (size_t l = 0; l < bits.size(); ++l) seen[l].push_back(bits[l]);
  }
  std::vector<ShuffledInformation> result;
  for (auto& bits : seen) {
    std::sort(bits.begin(), bits.end());
    const auto n = static_cast<double>(shuffles);
    result.push_back({std::accumulate(bits.begin(), bits.end(), 0.0) / n,
                      bits[static_cast<size_t>(std::ceil(kHigh * n)) - 1], bits.back()});
  }
  return result;
}

}  // namespace birkhoff::lab
