// How ops cut their rows into tasks. Internal to ops.
#pragma once
#include <algorithm>
#include <cstdint>

#include "core/exec.h"

namespace birkhoff::ops {

inline int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t to) { return div_up(a, to) * to; }

// Calls f(r) for every row, in tasks of about `task_elements` elements.
template <class F>
void for_rows(const Exec& exec, int64_t rows, int64_t cols, int64_t task_elements, F&& f) {
  const int64_t step = std::max<int64_t>(1, task_elements / std::max<int64_t>(1, cols));
  exec.parallel_for(div_up(rows, step), [&](int64_t task) {
    for (int64_t r = task * step; r < std::min(rows, (task + 1) * step); ++r) f(r);
  });
}

// Rows of one task of a normalisation: about 64 Ki elements, so that a task outweighs handing it out. Depends on the
// width alone, because the sums of the weights' gradients are cut here.
inline int64_t norm_rows_per_task(int64_t dim) {
  return std::clamp<int64_t>(65536 / std::max<int64_t>(dim, 1), 16, 1024);
}

}  // namespace birkhoff::ops
