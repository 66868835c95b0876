#include "kernels/elementwise.h"

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

}  // namespace

const ElementwiseKernels elementwise_kernels = {copy_row<float, float>, copy_row<float, bf16>, copy_row<bf16, float>,
                                                copy_row<bf16, bf16>,   add_row<float, float>, add_row<float, bf16>,
                                                add_row<bf16, float>,   add_row<bf16, bf16>};

}  // namespace birkhoff::kernels::BK_ISA
