// Rotary embedding by its formula, with the frequencies of models.md A.2 and D.4 written out.
#pragma once
#include <cstddef>
#include <vector>

namespace birkhoff::reference {

struct Rope {
  int dim;
  double theta;
  double linear = 1;                                             // positions are divided by this
  double yarn = 1, original = 0, beta_fast = 32, beta_slow = 1;  // yarn > 1: YaRN factor
  double magnitude = 1;

  double frequency(int pair) const;
  // Channels of pair i.
  int first(int i, bool interleaved) const { return interleaved ? 2 * i : i; }
  int second(int i, bool interleaved) const { return interleaved ? 2 * i + 1 : i + dim / 2; }

  template <class S>
  std::vector<S> rotate(const std::vector<S>& x, double position, bool interleaved) const;
};

}  // namespace birkhoff::reference
