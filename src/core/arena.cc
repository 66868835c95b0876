#include "core/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <utility>

namespace birkhoff {
namespace {
// Address space only, never memory. The sanitizers leave programs less of it, the thread sanitizer little.
#if defined(__SANITIZE_THREAD__)
constexpr size_t kMeasuringSpan = size_t{1} << 38;
#elif defined(__SANITIZE_ADDRESS__)
constexpr size_t kMeasuringSpan = size_t{8} << 40;
#else
constexpr size_t kMeasuringSpan = size_t{12}
                                  << 40;  // the moments of the largest preset; a plan holds seven at once, of 128 TiB
#endif

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

std::byte* map(size_t bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<std::byte*>(p);
}
}  // namespace

Arena::Arena(size_t capacity) : capacity_(round_up(std::max<size_t>(capacity, 1), size_t{1} << 21)) {
  base_ = map(capacity_, PROT_READ | PROT_WRITE);
  if (!base_) {
    throw Error("memory", "the system refused " + std::to_string(capacity_ >> 20) + " MiB",
                "use a smaller batch_size, seq_len or model, or recompute=layer");
  }
  madvise(base_, capacity_, MADV_HUGEPAGE);  // only advice: refusal costs speed, not correctness
}

Arena Arena::measuring() {
  std::byte* base = map(kMeasuringSpan, PROT_NONE);
  if (!base) throw Error("memory", "no address space for planning", "raise the limit on virtual memory (ulimit -v)");
  return Arena(base, kMeasuringSpan, Kind::measuring);
}

Arena::Arena(Arena&& o) noexcept
    : base_(std::exchange(o.base_, nullptr)), capacity_(o.capacity_), used_(o.used_), peak_(o.peak_), kind_(o.kind_) {}

Arena::~Arena() {
  if (base_ && kind_ != Kind::lent) munmap(base_, capacity_);
}

void* Arena::take_bytes(size_t bytes) {
  const size_t end = used_ + round_up(bytes, kAlign);
  if (is_measuring() && end > capacity_)
    throw Error("memory", "the plan needs more than " + std::to_string(capacity_ >> 30) + " GiB",
                "use a smaller batch_size, seq_len or model, or recompute=layer");
  BK_CHECK_LE(end, capacity_);
  void* p = base_ + used_;
  used_ = end;
  peak_ = std::max(peak_, used_);
  return p;
}

}  // namespace birkhoff
