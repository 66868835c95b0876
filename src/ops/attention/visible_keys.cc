#include "ops/attention/visible_keys.h"

#include <algorithm>

namespace birkhoff::ops {

void list_window_and_entries(const Exec& exec, std::span<const int32_t> first, int64_t first_query, int64_t window,
                             CIndexMat entries, int64_t first_entry, IndexMat keys) {
  BK_CHECK_EQ(static_cast<int64_t>(first.size()), keys.rows);
  BK_CHECK_EQ(entries.rows, keys.rows);
  BK_CHECK_LE(std::min(window, first_entry) + entries.cols, keys.cols);
  BK_CHECK(window > 0 && first_query >= 0);
  if (exec.dry()) return;
  BK_CHECK_LE(first_query + keys.rows, first_entry);
  Exec::Span span(exec, Work::attention);
  constexpr int64_t kStep = 64;
  exec.parallel_for((keys.rows + kStep - 1) / kStep, [&](int64_t task) {
    for (int64_t t = task * kStep; t < std::min(keys.rows, (task + 1) * kStep); ++t) {
      const int64_t own = first_query + t;
      int32_t* out = keys.row(t);
      for (int64_t row = std::max<int64_t>(first[static_cast<size_t>(t)], own - window + 1); row <= own; ++row)
        *out++ = static_cast<int32_t>(row);
      const int32_t* e = entries.row(t);
      for (int64_t i = 0; i < entries.cols && e[i] >= 0; ++i) *out++ = static_cast<int32_t>(first_entry + e[i]);
      std::fill(out, keys.row(t) + keys.cols, -1);
    }
  });
}

}  // namespace birkhoff::ops
