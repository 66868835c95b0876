// Python's random.Random for an integer seed, as far as few-shot examples need it: which examples a document gets is
// part of a task, so the generator is CPython's (3.8 to 3.13), number by number.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::eval {

// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998).
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);  // random.Random(seed)
  uint32_t next();                       // getrandbits(32)
  int64_t below(int64_t n);              // 0 to n - 1, for n from 1 to 2^31
  // sample(range(n), k), for k <= n.
  std::vector<int64_t> sample(int64_t n, int64_t k);

 private:
  static constexpr size_t kWords = 624;
  void twist();
  std::array<uint32_t, kWords> state_;
  size_t at_ = kWords;
};

}  // namespace birkhoff::eval
