#include "ops/rows/read_bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/arena.h"
#include "core/process.h"
#include "kernels/rows/read_stream.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::ops {
namespace {

int64_t system_value(int name) { return std::max<int64_t>(0, sysconf(name)); }

// The size that the cache of a package reports; of several packages each holds part of the block, 4 times leaves room.
// Pages of files count as available: taken for used, a full page cache left a block that partly fits the cache.
int64_t block_bytes() {
  constexpr int64_t kLeast = int64_t{256} << 20, kMost = int64_t{2} << 30;
  const auto available = static_cast<int64_t>(std::min<size_t>(available_memory_bytes(), INT64_MAX));
  const int64_t wanted = std::clamp(4 * system_value(_SC_LEVEL3_CACHE_SIZE), kLeast, kMost);
  return std::max(kLeast / 4, std::min(wanted, available / 2));
}

}  // namespace

double read_bandwidth(const Exec& exec) {
  constexpr int kPasses = 9;
  constexpr int64_t kRow = 1 << 19;  // floats: 2 MiB, a huge page
  const int64_t threads = exec.threads();
  const int64_t rows = std::max<int64_t>(1, block_bytes() / (kRow * 4) / threads);  // of a thread
  Arena memory(static_cast<size_t>(threads * rows * kRow * 4) + 4096);
  Mat block = memory.mat(f32_t, threads, rows * kRow);
  zero(exec, block);
  std::vector<float> sums(static_cast<size_t>(threads));
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    exec.parallel_for(threads, [&](int64_t t) {
      sums[static_cast<size_t>(t)] = kernels::read_stream_kernels().sum(block.f32(t), rows * kRow);
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(threads * rows * kRow * 4) / took.count());
  }
  return best;
}

}  // namespace birkhoff::ops
