// The memory that products say they read.
#include "ops/gemm/operand_pages.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "support/matrix.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;  // begin behind `base`, bytes

Ranges behind(const void* base, const std::vector<ByteRange>& ranges) {
  Ranges r;
  for (const ByteRange& range : ranges)
    r.emplace_back(range.data() - static_cast<const std::byte*>(base), static_cast<int64_t>(range.size()));
  return r;
}

ops::StoredTensor tensor(const uint8_t* data, int64_t rows, int64_t cols, ops::StoredType type) {
  ops::StoredTensor t;
  t.data = data, t.rows = rows, t.cols = cols, t.type = type;
  return t;
}

TEST(OperandPages, RowsOfSeveralTensors) {
  const std::vector<uint8_t> file(1 << 16);
  ops::StoredMatrix m;
  m.append(tensor(file.data(), 10, 32, ops::StoredType::bf16));             // 64 bytes a row
  m.append(tensor(file.data() + 4096, 6, 32, ops::StoredType::q4_0));       // 18
  m.append(tensor(file.data() + 8192, 32, 4, ops::StoredType::f32), true);  // 4 rows, turned
  const auto rows = [&](int64_t first, int64_t count) {
    std::vector<ByteRange> ranges;
    ops::add_memory(m, first, count, ranges);
    return behind(file.data(), ranges);
  };
  EXPECT_EQ(rows(0, 20), (Ranges{{0, 640}, {4096, 108}, {8192, 512}}));
  EXPECT_EQ(rows(3, 2), (Ranges{{192, 128}}));
  EXPECT_EQ(rows(9, 3), (Ranges{{576, 64}, {4096, 36}}));
  EXPECT_EQ(rows(12, 1), (Ranges{{4132, 18}}));
  EXPECT_EQ(rows(17, 1), (Ranges{{8192, 512}})) << "a column of the tensor is everywhere";
  EXPECT_EQ(rows(5, 0), Ranges{});

  std::vector<ByteRange> ranges;
  ops::add_memory(ops::Packed::transposed_rows(m, 2, 4, bf16_t), ranges);
  ops::add_memory(ops::Packed::rows(m, 11, 2, bf16_t), ranges);
  EXPECT_EQ(behind(file.data(), ranges), (Ranges{{128, 256}, {4114, 36}}));
}

TEST(OperandPages, ScalesOfTheRows) {
  const std::vector<uint8_t> file(1 << 16);
  ops::StoredTensor t = tensor(file.data(), 12, 40, ops::StoredType::f8_e4m3);
  t.scale = file.data() + 4096, t.scale_type = ops::ScaleType::f32, t.block_rows = 4, t.block_cols = 16;
  ops::StoredMatrix m;
  m.append(t);
  std::vector<ByteRange> ranges;
  ops::add_memory(m, 3, 2, ranges);  // of two rows of three factors
  EXPECT_EQ(behind(file.data(), ranges), (Ranges{{120, 80}, {4096, 24}}));
}

TEST(OperandPages, PanelsAsAWhole) {
  std::vector<uint8_t> panels(1 << 16);
  const ops::QuantMatrix q{panels.data() + 64, ops::QuantType::q4, 40, 64};
  std::vector<ByteRange> ranges;
  ops::add_memory(ops::Packed::of(q, bf16_t), ranges);
  ops::Packed packed;
  packed.data = panels.data() + 8192, packed.k = 64, packed.n = 40, packed.dtype = f32_t;
  ops::add_memory(packed, ranges);
  EXPECT_EQ(behind(panels.data(), ranges), (Ranges{{64, ops::QuantMatrix::bytes(ops::QuantType::q4, 40, 64)},
                                                   {8192, ops::Packed::bytes(f32_t, 64, 40)}}));
}

// Several pieces that begin within a page: all whole pages go.
TEST(OperandPages, WhatIsGivenBackHasNoGaps) {
  constexpr size_t kPage = 4096, kPages = 1024;
  const TempDir dir;
  const std::string path = dir.file("file", std::string(kPages * kPage, 'x'));
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  ::fsync(fd);
  void* map = mmap(nullptr, kPages * kPage, PROT_READ, MAP_PRIVATE, fd, 0);
  ASSERT_NE(map, MAP_FAILED);
  const auto* bytes = static_cast<const std::byte*>(map);
  std::vector<unsigned char> there(kPages);
  const auto count = [&] {
    uint64_t sum = 0;
    for (size_t i = 0; i < kPages; ++i) sum += std::to_integer<uint64_t>(bytes[i * kPage]);
    EXPECT_EQ(sum, kPages * 'x');
    return sum;
  };
  count();
  const ByteRange all(bytes, kPages * kPage);
  give_back(all);
  mincore(map, kPages * kPage, there.data());
  const bool can_forget = std::none_of(there.begin(), there.end(), [](unsigned char c) { return c & 1; });
  count();
  const ByteRange unaligned = all.subspan(100);
  ops::give_back(Exec(2), std::span(&unaligned, 1));
  mincore(map, kPages * kPage, there.data());
  const auto left = std::count_if(there.begin(), there.end(), [](unsigned char c) { return c & 1; });
  munmap(map, kPages * kPage);
  ::close(fd);
  if (!can_forget) GTEST_SKIP() << "pages of this file system are not given back";
  EXPECT_EQ(left, 1) << "the page that is not wholly in the range";
}

}  // namespace
}  // namespace birkhoff::test
