// Doubly stochastic matrices of batches of logits: Sinkhorn-Knopp, and the forms without iterations.
#include "ops/residual/sinkhorn.h"

#include <algorithm>

#include "kernels/residual/sinkhorn.h"
#include "ops/residual/residual_coefficients.h"

namespace birkhoff::ops {
namespace {

void check(int64_t n, int iters, CMat z, CMat out) {
  BK_CHECK(n >= 1 && n <= 8);
  BK_CHECK_LE(1, iters);
  check_shape(z, out.rows, n * n);
  check_shape(out, z.rows, n * n);
}

void load_soa(CMat m, int64_t first, int64_t count, float* soa) {
  for (int64_t i = 0; i < m.cols; ++i)
    for (int64_t t = 0; t < kTokens; ++t) soa[i * kTokens + t] = t < count ? m.f32(first + t)[i] : 0.f;
}
void store_soa(const float* soa, int64_t first, int64_t count, Mat m) {
  for (int64_t i = 0; i < m.cols; ++i)
    for (int64_t t = 0; t < count; ++t) m.f32(first + t)[i] = soa[i * kTokens + t];
}

template <class F>
void for_batches(const Exec& exec, int64_t rows, F&& f) {
  exec.parallel_for((rows + kTokens - 1) / kTokens,
                    [&](int64_t b) { f(b * kTokens, std::min<int64_t>(kTokens, rows - b * kTokens)); });
}

void check_mixture(ResForm form, int64_t n, CMat z, CMat out) {
  check_shape(z, out.rows, res_logits(form, n));
  check_shape(out, z.rows, n * n);
}

}  // namespace

int64_t res_logits(ResForm form, int64_t n) {
  BK_CHECK(n >= 1 && n <= kernels::kMaxStreams);
  int64_t logits = 1;
  switch (form) {
    case ResForm::sinkhorn:
      logits = n * n;
      break;
    case ResForm::lite:
      static_assert(kMaxLiteStreams == kernels::kMaxLiteStreams);
      BK_CHECK_LE(n, kMaxLiteStreams);
      for (int64_t k = 2; k <= n; ++k) logits *= k;
      break;
    case ResForm::kron:
      BK_CHECK_EQ(n & (n - 1), 0);
      logits = n == 1 ? 0 : n == 2 ? 2 : n == 4 ? 4 : 6;
      break;
  }
  return logits;
}

const kernels::MixtureForm& mixture_form(ResForm form) {
  BK_CHECK(form != ResForm::sinkhorn);
  return form == ResForm::lite ? kernels::permutation_kernels().lite : kernels::permutation_kernels().kron;
}

void sinkhorn_forward(const Exec& exec, HcConvention convention, int64_t n, int iters, float eps, CMat z, Mat out) {
  check(n, iters, z, out);
  if (exec.dry()) return;
  for_batches(exec, z.rows, [&](int64_t first, int64_t count) {
    WorkerScratch scratch;
    float* in = scratch.take<float>(n * n * kTokens);
    float* s = scratch.take<float>(n * n * kTokens);
    load_soa(z, first, count, in);
    kernels::sinkhorn_kernels().forward(in, s, static_cast<int>(n), iters, eps, convention == HcConvention::v4,
                                        nullptr);
    store_soa(s, first, count, out);
  });
}

void sinkhorn_backward(const Exec& exec, HcConvention convention, int64_t n, int iters, float eps, CMat z, CMat d_out,
                       Mat dz) {
  check(n, iters, z, dz);
  check(n, iters, d_out, dz);
  if (exec.dry()) return;
  for_batches(exec, z.rows, [&](int64_t first, int64_t count) {
    WorkerScratch scratch;
    float* in = scratch.take<float>(n * n * kTokens);
    float* d = scratch.take<float>(n * n * kTokens);
    float* result = scratch.take<float>(n * n * kTokens);
    float* history = scratch.take<float>(2 * int64_t{iters} * n * kTokens);
    float* work = scratch.take<float>(2 * n * n * kTokens);
    load_soa(z, first, count, in);
    load_soa(d_out, first, count, d);
    kernels::sinkhorn_kernels().backward(in, d, result, static_cast<int>(n), iters, eps, convention == HcConvention::v4,
                                         history, work);
    store_soa(result, first, count, dz);
  });
}

void mixture_forward(const Exec& exec, ResForm form, int64_t n, CMat z, Mat out) {
  check_mixture(form, n, z, out);
  if (exec.dry()) return;
  for_batches(exec, z.rows, [&](int64_t first, int64_t count) {
    WorkerScratch scratch;
    float* in = scratch.take<float>(z.cols * kTokens);
    float* m = scratch.take<float>(n * n * kTokens);
    load_soa(z, first, count, in);
    mixture_form(form).forward(in, m, static_cast<int>(n));
    store_soa(m, first, count, out);
  });
}

void mixture_backward(const Exec& exec, ResForm form, int64_t n, CMat z, CMat d_out, Mat dz) {
  check_mixture(form, n, z, d_out);
  check_shape(dz, z.rows, z.cols);
  if (exec.dry()) return;
  for_batches(exec, z.rows, [&](int64_t first, int64_t count) {
    WorkerScratch scratch;
    float* in = scratch.take<float>(z.cols * kTokens);
    float* result = scratch.take<float>(z.cols * kTokens);
    float* d = scratch.take<float>(n * n * kTokens);
    float* m = scratch.take<float>(n * n * kTokens);
    load_soa(z, first, count, in);
    load_soa(d_out, first, count, d);
    mixture_form(form).backward(in, d, result, m, static_cast<int>(n));
    store_soa(result, first, count, dz);
  });
}

}  // namespace birkhoff::ops
