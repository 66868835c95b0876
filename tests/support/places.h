// Packed rows for tests: documents one after the other, each with its own positions.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "layers/tokens.h"

namespace birkhoff::test {

// starts: first row of every document, 0 first. sequences: first row of every sequence; each is the start of a document
// too.
struct Packed {
  std::vector<int32_t> position, first_key, segment_start, sequence_start;

  explicit Packed(int64_t tokens, const std::vector<int32_t>& starts = {0}, const std::vector<int32_t>& sequences = {0})
      : segment_start(starts), sequence_start(sequences) {
    for (int32_t t = 0; t < tokens; ++t) {
      const int32_t first = *(std::upper_bound(starts.begin(), starts.end(), t) - 1);
      first_key.push_back(first);
      position.push_back(t - first);
    }
  }
  layers::TokenContext context() const { return {position, first_key, segment_start, sequence_start}; }
};

}  // namespace birkhoff::test
