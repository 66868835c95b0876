#include "kernels/rows/elementwise.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class From, class To>
void copy_row(const From* from, To* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { store_some(to + i, load_some(from + i, k), k); });
}
template <class From, class To>
void add_row(const From* from, To* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int k) { store_some(to + i, load_some(to + i, k) + load_some(from + i, k), k); });
}

void split(const float* from, bf16* high, bf16* low, int64_t n) {
  for_lanes(n, [&](int64_t i, int lanes) {
    const V v = load_some(from + i, lanes);
    store_some(high + i, v, lanes);
    store_some(low + i, v - load_some(high + i, lanes), lanes);
  });
}

}  // namespace

const ElementwiseKernels elementwise_kernels = {copy_row<float, float>, copy_row<float, bf16>, copy_row<bf16, float>,
                                                copy_row<bf16, bf16>,   add_row<float, float>, add_row<float, bf16>,
                                                add_row<bf16, float>,   add_row<bf16, bf16>,   split};

}  // namespace birkhoff::kernels::BK_ISA
