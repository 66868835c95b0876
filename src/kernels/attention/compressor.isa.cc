#include "kernels/attention/compressor.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

// One vector of channels: the softmax's maximum, its denominator and the weighted sum, rows in order.
struct Column {
  V top, sum, entry;
};

template <class F>
void for_rows(const CompressorRun (&runs)[2], int64_t i, int n, F&& f) {
  for (int r = 0; r < 2; ++r)
    for (int64_t j = 0; j < runs[r].rows; ++j) {
      const CompressorRun& a = runs[r];
      f(r, j, load_some(a.z + j * a.stride + i, n) + load_some(a.ape + j * a.ape_stride + i, n),
        a.k + j * a.stride + i);
    }
}

Column reduce(const CompressorRun (&runs)[2], int64_t i, int n) {
  Column c{set1(-3.4e38f), set1(0.f), set1(0.f)};
  for_rows(runs, i, n, [&](int, int64_t, V z, const float*) { c.top = max(c.top, z); });
  for_rows(runs, i, n, [&](int, int64_t, V z, const float* k) {
    const V e = exp(z - c.top);
    c.sum = c.sum + e;
    c.entry = fma(e, load_some(k, n), c.entry);
  });
  c.entry = c.entry / c.sum;
  return c;
}

void forward(const CompressorRun (&runs)[2], float* entry, int64_t dim) {
  for_lanes(dim, [&](int64_t i, int n) { store_some(entry + i, reduce(runs, i, n).entry, n); });
}

void backward(const CompressorRun (&runs)[2], const float* d_entry, const CompressorRunGradient (&grads)[2],
              int64_t dim) {
  for_lanes(dim, [&](int64_t i, int n) {
    const Column c = reduce(runs, i, n);
    const V d = load_some(d_entry + i, n);
    for_rows(runs, i, n, [&](int r, int64_t j, V z, const float* k) {
      const V dk = exp(z - c.top) / c.sum * d;
      const int64_t at = j * grads[r].stride + i;
      store_some(grads[r].dk + at, dk, n);
      store_some(grads[r].dz + at, dk * (load_some(k, n) - c.entry), n);
    });
  });
}

}  // namespace

const CompressorKernels compressor_kernels = {forward, backward};

}  // namespace birkhoff::kernels::BK_ISA
