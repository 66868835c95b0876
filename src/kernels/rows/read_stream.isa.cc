#include "kernels/rows/read_stream.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// Named sums stay in registers whatever the compiler unrolls; eight of them hide the latency of an addition.
float sum(const float* p, int64_t n) {
  V a = set1(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  int64_t i = 0;
  for (; i + 8 * kLanes <= n; i += 8 * kLanes) {
    a = a + load(p + i);
    b = b + load(p + i + kLanes);
    c = c + load(p + i + 2 * kLanes);
    d = d + load(p + i + 3 * kLanes);
    e = e + load(p + i + 4 * kLanes);
    f = f + load(p + i + 5 * kLanes);
    g = g + load(p + i + 6 * kLanes);
    h = h + load(p + i + 7 * kLanes);
  }
  float total = reduce_add(((a + b) + (c + d)) + ((e + f) + (g + h)));
  for (; i < n; ++i) total += p[i];
  return total;
}

}  // namespace

const ReadStreamKernels read_stream_kernels = {sum};

}  // namespace birkhoff::kernels::BK_ISA
