#include "core/pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace birkhoff {
namespace {

// A call reads no more than the read-ahead of the disk or its largest transfer, whichever is more, and forgets the rest
// (mm/readahead.c, force_page_cache_ra). No disk has less than the default read-ahead.
constexpr size_t kAskedAtOnce = size_t{128} << 10;

template <class F>
void for_pages(ByteRange range, F&& f) {
  if (range.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(range.data()), end = begin + range.size();
  f(begin / page * page, (end + page - 1) / page * page);
}

template <class F>
void for_whole_pages(ByteRange range, F&& f) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto at = reinterpret_cast<uintptr_t>(range.data());
  const uintptr_t begin = (at + page - 1) / page * page, end = (at + range.size()) / page * page;
  if (begin < end) f(reinterpret_cast<void*>(begin), end - begin);
}

}  // namespace

void will_need(ByteRange range) {
  for_pages(range, [](uintptr_t begin, uintptr_t end) {
    for (uintptr_t at = begin; at < end; at += kAskedAtOnce)
      madvise(reinterpret_cast<void*>(at), std::min<size_t>(kAskedAtOnce, end - at), MADV_WILLNEED);
  });
}

void give_back(ByteRange range) {
  for_whole_pages(range, [](void* begin, size_t bytes) { madvise(begin, bytes, MADV_PAGEOUT); });
}

void let_go(ByteRange range) {
  for_whole_pages(range, [](void* begin, size_t bytes) { madvise(begin, bytes, MADV_DONTNEED); });
}

void read_as_asked(ByteRange range) {
  for_pages(range,
            [](uintptr_t begin, uintptr_t end) { madvise(reinterpret_cast<void*>(begin), end - begin, MADV_RANDOM); });
}

}  // namespace birkhoff
