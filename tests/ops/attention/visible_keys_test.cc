#include "ops/attention/visible_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace birkhoff::test {
namespace {

TEST(VisibleKeys, WindowThenEntries) {
  const Exec exec(2);
  for (const int64_t T : {0, 1, 7, 200})
    for (const int64_t before : {0, 3})
      for (const int64_t window : {1, 4, 300}) {
        std::vector<int32_t> first, entries;
        constexpr int64_t kEntries = 3;
        for (int64_t t = 0; t < T; ++t) {
          first.push_back(static_cast<int32_t>(t > 4 ? 4 : 0));
          for (int64_t i = 0; i < kEntries; ++i) entries.push_back(static_cast<int32_t>(i < t % 4 ? 2 * i + t : -1));
        }
        const int64_t first_entry = before + T + 5, cols = std::min(window, first_entry) + kEntries;
        std::vector<int32_t> keys(static_cast<size_t>(T * cols), 77);
        ops::list_window_and_entries(exec, first, before, window, {entries.data(), T, kEntries}, first_entry,
                                     {keys.data(), T, cols});
        for (int64_t t = 0; t < T; ++t) {
          std::vector<int32_t> want;
          for (int64_t row = 0; row <= before + t; ++row)
            if (row >= first[static_cast<size_t>(t)] && row > before + t - window)
              want.push_back(static_cast<int32_t>(row));
          for (int64_t i = 0; i < kEntries; ++i)
            if (const int32_t e = entries[static_cast<size_t>(t * kEntries + i)]; e >= 0)
              want.push_back(static_cast<int32_t>(first_entry + e));
          want.resize(static_cast<size_t>(cols), -1);
          EXPECT_EQ(std::vector<int32_t>(keys.begin() + t * cols, keys.begin() + (t + 1) * cols), want)
              << T << " " << before << " " << window << " " << t;
        }
      }
}

}  // namespace
}  // namespace birkhoff::test
