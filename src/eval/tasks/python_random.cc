#include "eval/tasks/python_random.h"

#include <bit>
#include <numeric>
#include <unordered_set>

#include "core/error.h"

namespace birkhoff::eval {

// init_by_array of the reference code, keyed by the words of the seed, least significant first.
PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key{static_cast<uint32_t>(seed)};
  if (seed >> 32) key.push_back(static_cast<uint32_t>(seed >> 32));
  const auto previous = [&](size_t i) { return state_[i - 1] ^ state_[i - 1] >> 30; };
  state_[0] = 19650218;
  for (size_t i = 1; i < kWords; ++i) state_[i] = 1812433253U * previous(i) + static_cast<uint32_t>(i);
  size_t i = 1, j = 0;
  const auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t k = 0; k < kWords; ++k) {
    state_[i] = (state_[i] ^ previous(i) * 1664525U) + key[j] + static_cast<uint32_t>(j);
    step();
    j = (j + 1) % key.size();
  }
  for (size_t k = 1; k < kWords; ++k) {
    state_[i] = (state_[i] ^ previous(i) * 1566083941U) - static_cast<uint32_t>(i);
    step();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::twist() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7fffffffU);
    state_[i] = state_[(i + 397) % kWords] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfU : 0);
  }
  at_ = 0;
}

uint32_t PythonRandom::next() {
  if (at_ == kWords) twist();
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680U;
  y ^= y << 15 & 0xefc60000U;
  return y ^ y >> 18;
}

int64_t PythonRandom::below(int64_t n) {
  BK_CHECK(n > 0 && n <= int64_t{1} << 31);
  const auto bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(n)));
  int64_t r = 0;
  do r = next() >> (32 - bits);
  while (r >= n);
  return r;
}

std::vector<int64_t> PythonRandom::sample(int64_t n, int64_t k) {
  BK_CHECK(k >= 0 && k <= n);
  // A set of the chosen ones is smaller than a list of all from this size on.
  int64_t set_size = 21;
  if (k > 5) {
    int64_t power = 1;
    while (power < 3 * k) power *= 4;
    set_size += power;
  }
  std::vector<int64_t> chosen;
  if (n <= set_size) {
    std::vector<int64_t> pool(static_cast<size_t>(n));
    std::iota(pool.begin(), pool.end(), 0);
    for (int64_t i = 0; i < k; ++i) {
      const auto j = static_cast<size_t>(below(n - i));
      chosen.push_back(pool[j]);
      pool[j] = pool[static_cast<size_t>(n - i - 1)];
    }
    return chosen;
  }
  std::unordered_set<int64_t> taken;
  while (static_cast<int64_t>(chosen.size()) < k)
    if (const int64_t j = below(n); taken.insert(j).second) chosen.push_back(j);
  return chosen;
}

}  // namespace birkhoff::eval
