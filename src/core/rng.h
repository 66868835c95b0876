// Counter-based random numbers: value i of a stream is a pure function of (key, i), so order and threads do not matter.
#pragma once
#include <cmath>
#include <cstdint>

namespace birkhoff {

// splitmix64 finaliser (Steele, Lea, Flood 2014).
inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

class Rng {
 public:
  // The stream named by (seed, a, b, c), e.g. (seed, step, layer, site).
  explicit Rng(uint64_t seed, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0)
      : key_(mix64(mix64(mix64(mix64(seed) ^ a) ^ b) ^ c)) {}
  uint64_t bits(uint64_t i) const { return mix64(key_ ^ mix64(i)); }
  double uniform(uint64_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1.0p-53; }  // [0, 1)
  double normal(uint64_t i) const {                                                            // N(0, 1), Box-Muller
    const double u = 1.0 - uniform(2 * i), v = uniform(2 * i + 1);
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  uint64_t key_;
};

}  // namespace birkhoff
