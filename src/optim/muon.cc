#include "optim/muon.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/rows/optimizer.h"
#include "ops/gemm/gemm.h"
#include "ops/rows/elementwise.h"
#include "optim/optimizer.h"

namespace birkhoff::optim {
namespace {

constexpr int kSteps = 10;
struct Coefficients {
  float a, b, c;
};
constexpr Coefficients coefficients(int step) {
  return step < 8 ? Coefficients{3.4445f, -4.7750f, 2.0315f} : Coefficients{2.f, -1.5f, 0.5f};
}

void transpose(const Exec& exec, CMat from, Mat to) {
  exec.parallel_for((from.rows + 31) / 32, [&](int64_t block) {
    for (int64_t r = block * 32; r < std::min(from.rows, block * 32 + 32); ++r)
      for (int64_t c = 0; c < from.cols; ++c) to.f32(c)[r] = from.f32(r)[c];
  });
}

template <class F>
void for_rows(const Exec& exec, Mat m, F&& f) {
  exec.parallel_for((m.rows + 15) / 16, [&](int64_t block) {
    for (int64_t r = block * 16; r < std::min(m.rows, block * 16 + 16); ++r) f(r);
  });
}

}  // namespace

void newton_schulz(const Exec& exec, CMat g, Mat out, Arena& scratch) {
  check_shape(out, g.rows, g.cols);
  BK_CHECK(g.contiguous() && out.contiguous());
  Arena::Scope scope(scratch);
  const bool tall = g.rows > g.cols;  // work on the side with the smaller Gram matrix
  const int64_t r = std::min(g.rows, g.cols), c = std::max(g.rows, g.cols);
  Mat x = tall ? scratch.mat(f32_t, r, c) : out;
  Mat gram = scratch.mat(f32_t, r, r), poly = scratch.mat(f32_t, r, r), next = scratch.mat(f32_t, r, c);
  const ops::Packed xt = ops::Packed::take(scratch, f32_t, c, r), gram_packed = ops::Packed::take(scratch, f32_t, r, r),
                    x_packed = ops::Packed::take(scratch, f32_t, r, c);
  if (exec.dry() || g.empty()) return;
  const auto& k = kernels::optimizer_kernels();
  if (tall)
    transpose(exec, g, x);
  else
    ops::copy(exec, g, x);
  const double norm = global_norm(exec, x.f32(), x.size());
  if (norm == 0) {
    ops::zero(exec, out);
    return;
  }
  for_rows(exec, x, [&](int64_t i) { k.scale(x.f32(i), c, static_cast<float>(1 / norm)); });
  for (int step = 0; step < kSteps; ++step) {
    const Coefficients q = coefficients(step);
    ops::pack_transposed(exec, x, xt);
    ops::gemm(exec, x, xt, gram);  // A = X X^T
    ops::pack(exec, gram, gram_packed);
    ops::gemm(exec, gram, gram_packed, poly);  // A A
    for_rows(exec, poly, [&](int64_t i) { k.axpby(gram.f32(i), poly.f32(i), r, q.b, q.c); });
    ops::pack(exec, x, x_packed);
    ops::gemm(exec, poly, x_packed, next);  // (b A + c A A) X
    for_rows(exec, x, [&](int64_t i) { k.axpby(next.f32(i), x.f32(i), c, 1.f, q.a); });
  }
  if (tall) transpose(exec, x, out);
}

double newton_schulz_flops(int64_t rows, int64_t cols) {
  const auto a = static_cast<double>(std::min(rows, cols)), b = static_cast<double>(std::max(rows, cols));
  return kSteps * (4 * a * a * b + 2 * a * a * a);
}

}  // namespace birkhoff::optim
