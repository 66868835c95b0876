// What is asked for comes, and nothing else.
#include "core/pages.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "support/temp_dir.h"

namespace birkhoff {
namespace {

TEST(Pages, WhatIsAskedForComesAlone) {
  constexpr size_t kPage = 4096, kPages = 4096;
  const test::TempDir dir;
  const std::string path = dir.file("file", std::string(kPages * kPage, 'x'));
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  ::fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  void* map = mmap(nullptr, kPages * kPage, PROT_READ, MAP_PRIVATE, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  std::vector<unsigned char> there(kPages);
  const auto count = [&](size_t first, size_t pages) {
    mincore(map, kPages * kPage, there.data());
    size_t n = 0;
    for (size_t i = first; i < first + pages; ++i) n += there[i] & 1;
    return n;
  };
  const bool can_forget = count(0, kPages) == 0;
  const auto* bytes = static_cast<const std::byte*>(map);
  read_as_asked({bytes, kPages * kPage});
  will_need({bytes + 1000 * kPage + 4095, 700 * kPage});  // 701 pages, more than a call reads
  for (int i = 0; i < 500 && count(1000, 701) < 701; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(bytes[3000 * kPage], std::byte{'x'});
  const size_t asked = count(1000, 701), before = count(0, 1000), behind = count(1701, kPages - 1701);
  uint64_t sum = 0;
  for (size_t i = 1000; i < 1701; ++i) sum += std::to_integer<uint64_t>(bytes[i * kPage]);
  give_back({bytes + 1000 * kPage + 1, 100 * kPage});  // 99 whole pages
  const size_t left = count(1000, 701);
  munmap(map, kPages * kPage);
  ::close(fd);
  if (!can_forget) GTEST_SKIP() << "a file system in memory";
  EXPECT_EQ(asked, 701u);
  EXPECT_EQ(before + behind, 1u) << "the page that was read";
  EXPECT_EQ(sum, 701u * 'x');
  EXPECT_EQ(left, 602u);
  will_need({});
  give_back({});
}

int64_t resident_pages() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident;
}

TEST(Pages, WhatIsLetGoIsReadAgain) {
  constexpr size_t kPage = 4096, kPages = 4096;
  const test::TempDir dir;
  const std::string path = dir.file("file", std::string(kPages * kPage, 'x'));
  const int fd = ::open(path.c_str(), O_RDONLY);
  ASSERT_GE(fd, 0);
  void* map = mmap(nullptr, kPages * kPage, PROT_READ, MAP_PRIVATE, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  const auto* bytes = static_cast<const std::byte*>(map);
  const auto sum = [&] {
    uint64_t all = 0;
    for (size_t i = 0; i < kPages; ++i) all += std::to_integer<uint64_t>(bytes[i * kPage]);
    return all;
  };
  EXPECT_EQ(sum(), kPages * 'x');
  const int64_t before = resident_pages();
  let_go({bytes, kPages * kPage});
  EXPECT_LT(resident_pages(), before - 3500);
  EXPECT_EQ(sum(), kPages * 'x');
  munmap(map, kPages * kPage);
  ::close(fd);
}

}  // namespace
}  // namespace birkhoff
