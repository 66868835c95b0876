#include "reference/compressor.h"

#include <cmath>

#include "reference/complex_step.h"

namespace birkhoff::reference {

template <class S>
std::vector<S> Compressor::operator()(const std::vector<S>& k, const std::vector<S>& z, const std::vector<S>& ape,
                                      const std::vector<int32_t>& starts) const {
  const size_t tokens = k.size() / cols();
  std::vector<S> entries;
  for (size_t d = 0; d < starts.size(); ++d) {
    const auto first = static_cast<size_t>(starts[d]),
               end = d + 1 < starts.size() ? static_cast<size_t>(starts[d + 1]) : tokens;
    for (size_t i = 0; (i + 1) * ratio <= end - first; ++i)
      for (size_t c = 0; c < dim; ++c) {
        S sum = 0, weighted = 0;
        const auto take = [&](size_t j, size_t channel) {  // token j of the document
          const S e = std::exp(z[(first + j) * cols() + channel] + ape[(j % ratio) * cols() + channel]);
          sum += e;
          weighted += e * k[(first + j) * cols() + channel];
        };
        for (size_t j = i * ratio; overlap && i > 0 && j < (i + 1) * ratio; ++j) take(j - ratio, c);
        for (size_t j = i * ratio; j < (i + 1) * ratio; ++j) take(j, overlap ? dim + c : c);
        entries.push_back(weighted / sum);
      }
  }
  return entries;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                                       \
  template std::vector<S> Compressor::operator()(const std::vector<S>&, const std::vector<S>&, const std::vector<S>&, \
                                                 const std::vector<int32_t>&) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
