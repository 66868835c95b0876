#include "fuzz/live_memory.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace birkhoff::fuzz::live_memory {
namespace {

// Fuzzers have one thread; parsers that use several must not be counted here.
bool counting = false;
long long live = 0, peak = 0, most = 0;

void* take(size_t bytes, size_t align) {
  if (counting) {
    peak = std::max(peak, live + static_cast<long long>(std::min(bytes, size_t{1} << 62)));
    if (peak > most) throw std::bad_alloc();
  }
  void* p = align > alignof(std::max_align_t) ? std::aligned_alloc(align, (bytes + align - 1) / align * align)
                                              : std::malloc(std::max<size_t>(bytes, 1));
  if (!p) throw std::bad_alloc();
  if (counting) live += static_cast<long long>(malloc_usable_size(p));
  return p;
}

void give(void* p) {
  if (counting && p) live -= static_cast<long long>(malloc_usable_size(p));
  std::free(p);
}

}  // namespace

void start(size_t limit) {
  live = peak = 0;
  most = static_cast<long long>(10 * limit);
  counting = true;
}

size_t stop() {
  counting = false;
  return static_cast<size_t>(std::max(peak, 0LL));
}

}  // namespace birkhoff::fuzz::live_memory

namespace memory = birkhoff::fuzz::live_memory;
void* operator new(size_t n) { return memory::take(n, 0); }
void* operator new[](size_t n) { return memory::take(n, 0); }
void* operator new(size_t n, std::align_val_t a) { return memory::take(n, static_cast<size_t>(a)); }
void* operator new[](size_t n, std::align_val_t a) { return memory::take(n, static_cast<size_t>(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept {
  try {
    return memory::take(n, 0);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new[](size_t n, const std::nothrow_t& t) noexcept { return operator new(n, t); }
void operator delete(void* p) noexcept { memory::give(p); }
void operator delete[](void* p) noexcept { memory::give(p); }
void operator delete(void* p, size_t) noexcept { memory::give(p); }
void operator delete[](void* p, size_t) noexcept { memory::give(p); }
void operator delete(void* p, std::align_val_t) noexcept { memory::give(p); }
void operator delete[](void* p, std::align_val_t) noexcept { memory::give(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { memory::give(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { memory::give(p); }
