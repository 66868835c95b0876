// Compressed entries of DeepSeek-V4 by their definition (models.md G.4), document by document, on any scalar.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::reference {

struct Compressor {
  size_t dim, ratio;
  bool overlap;

  size_t cols() const { return overlap ? 2 * dim : dim; }

  // k and z [tokens, cols] of all documents, starts: the first row of each. Entries of all documents in order.
  template <class S>
  std::vector<S> operator()(const std::vector<S>& k, const std::vector<S>& z, const std::vector<S>& ape,
                            const std::vector<int32_t>& starts) const;
};

}  // namespace birkhoff::reference
