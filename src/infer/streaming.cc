#include "infer/streaming.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "core/process.h"
#include "io/user_files.h"

namespace birkhoff::infer {
namespace {

struct FreeBlock {
  void operator()(void* p) const { std::free(p); }
};

// Where a file system has no reading past the page cache, what is read is forgotten first.
io::Descriptor open_uncached(const std::string& path) {
  io::Descriptor direct(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (direct.get() >= 0) return direct;
  io::Descriptor cached(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (cached.get() >= 0) posix_fadvise(cached.get(), 0, 0, POSIX_FADV_DONTNEED);
  return cached;
}

std::string in_mib(double bytes) {
  char text[40];
  std::snprintf(text, sizeof text, "%.0f MiB", bytes / (1 << 20));
  return text;
}

}  // namespace

std::string StreamedSpeed::said() const {
  const double all = static_cast<double>(weights.every) + static_cast<double>(weights.routed);
  std::string text = "streamed: weights of " + in_mib(all) + ", " + in_mib(std::min(all, memory)) + " stay in memory";
  const double bytes = disk_bytes();
  if (bytes == 0) return text + " once they were read";
  text +=
      ": a token is expected to read " + in_mib(bytes) + " of its " + in_mib(weights.per_token()) + " from the disk";
  if (disk_rate == 0) return text;
  char speed[80];
  std::snprintf(speed, sizeof speed, ", at %.2f GB/s %.2f tokens/s", disk_rate * 1e-9, disk_rate / bytes);
  return text + speed;
}

void StreamMeter::begin() {
  start_ = std::chrono::steady_clock::now();
  start_bytes_ = disk_read_bytes();
}

void StreamMeter::add(int64_t tokens) {
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  bytes_ += static_cast<double>(disk_read_bytes() - start_bytes_);
  tokens_ += tokens;
  begin();
}

double disk_read_rate(const Exec& exec, const std::string& path) {
  constexpr int64_t kPiece = int64_t{4} << 20, kPieces = 64, kAlign = 4096;
  constexpr double kSeconds = 0.4;
  struct stat about {};
  const io::Descriptor file = open_uncached(path);
  if (file.get() < 0 || fstat(file.get(), &about) != 0) return 0;
  const int64_t there = std::max<int64_t>(1, about.st_size / kPiece), pieces = std::min(there, kPieces);
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::atomic<int64_t> bytes{0};
  exec.parallel_for(pieces, [&](int64_t i) {
    if (seconds() > kSeconds) return;
    const std::unique_ptr<void, FreeBlock> block(std::aligned_alloc(kAlign, kPiece));
    const ssize_t n = block ? ::pread(file.get(), block.get(), kPiece, i * there / pieces * kPiece) : 0;
    if (n > 0) bytes += n;
  });
  return static_cast<double>(bytes) / seconds();
}

}  // namespace birkhoff::infer
