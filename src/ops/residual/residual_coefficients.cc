#include "ops/residual/residual_coefficients.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/exec.h"

namespace birkhoff::ops {
namespace {

using kernels::sinkhorn_kernels;
// n(n+2) for the most streams, or 2n + n! for the most that mHC-lite has.
constexpr int kSlots = 130;
static_assert(kSlots >= kernels::kMaxStreams * (kernels::kMaxStreams + 2) && kSlots >= 2 * kMaxLiteStreams + 120);

// Coefficients in the order pre (n), post (n), res (its logits), or the entries of the maps: pre, post, res (n*n, as
// stored: [j][k] but for the paper's convention); structure of arrays over 16 tokens.
struct Soa {
  alignas(64) float v[kSlots][kTokens];
};

// Where coefficient i stands in a row of logits. mhc keeps the order above; hc rows are [stream][beta, A_m, A_r...].
int logit_slot(const ResidualSpec& s, int i) {
  const int n = static_cast<int>(s.streams);
  if (s.kind == ResidualKind::mhc) return i;
  if (i < n) return i * (n + 2) + 1;
  if (i < 2 * n) return (i - n) * (n + 2);
  const int j = (i - 2 * n) / n, k = (i - 2 * n) % n;
  return j * (n + 2) + 2 + k;
}

// Which learned scale a coefficient has: mhc pre, post, res; hc (beta, alpha).
int scale_slot(const ResidualSpec& s, int i) {
  const int n = static_cast<int>(s.streams), group = i < n ? 0 : i < 2 * n ? 1 : 2;
  return s.kind == ResidualKind::mhc ? group : group == 1 ? 0 : 1;
}

// The slots of the maps wanted are one range each; visit(i) sees them all. res: how many H_res has.
template <class F>
void for_wanted(const ResidualSpec& s, Wanted wanted, int64_t res, F&& visit) {
  const int n = static_cast<int>(s.streams), m = 2 * n + static_cast<int>(res);
  for (int i = 0; i < m; ++i)
    if (i < n ? wanted.pre : i < 2 * n ? wanted.post : wanted.res) visit(i);
}

void load_soa(const ResidualSpec& s, const float* logits, int tokens, Wanted wanted, Soa& q) {
  const int m = static_cast<int>(s.coefficients());
  for_wanted(s, wanted, res_logits(s.res_form, s.streams), [&](int i) {
    const int at = logit_slot(s, i);
    for (int t = 0; t < kTokens; ++t) q.v[i][t] = logits && t < tokens ? logits[t * m + at] : 0.f;
  });
}

bool learned(const ResidualSpec& s, int i) {
  const int n = static_cast<int>(s.streams);
  return i < n ? s.learn_pre : i < 2 * n ? s.learn_post : s.learn_res;
}

// Element of the stored matrix ([j][k] with the coefficients' order) that is H[k][j].
int stored_index(const ResidualSpec& s, int k, int j) {
  const int n = static_cast<int>(s.streams);
  const bool transposed = s.kind == ResidualKind::hc || s.convention == HcConvention::v4;
  return transposed ? j * n + k : k * n + j;
}

void store_res(const ResidualSpec& s, const Soa& y, int tokens, SiteMaps& maps) {
  const int n = static_cast<int>(s.streams);
  for (int k = 0; k < n; ++k)
    for (int j = 0; j < n; ++j) {
      const float* from = y.v[2 * n + stored_index(s, k, j)];
      for (int t = 0; t < tokens; ++t) maps.res[t][k * n + j] = from[t];
    }
}

void affine(const ResidualSpec& s, const SiteWeights& w, const Soa& q, Soa& z) {
  const int n = static_cast<int>(s.streams), m = static_cast<int>(s.coefficients());
  for (int i = 2 * n; i < m; ++i)
    for (int t = 0; t < kTokens; ++t) z.v[i][t] = w.scale.f32()[2] * q.v[i][t] + w.base.f32()[i];
}

void mhc_values(const ResidualSpec& s, const SiteWeights& w, const Soa& q, Wanted wanted, Soa& y) {
  const int n = static_cast<int>(s.streams);
  const float *scale = w.scale.f32(), *base = w.base.f32();
  for (int i = 0; i < n && wanted.pre; ++i)
    sinkhorn_kernels().sigmoid(q.v[i], scale[0], base[i], 1.f, s.hc_eps, y.v[i]);
  for (int i = n; i < 2 * n && wanted.post; ++i)
    sinkhorn_kernels().sigmoid(q.v[i], scale[1], base[i], 2.f, 0.f, y.v[i]);
  if (!wanted.res) return;
  Soa z;
  affine(s, w, q, z);
  if (s.res_form == ResForm::sinkhorn)
    sinkhorn_kernels().forward(z.v[2 * n], y.v[2 * n], n, s.sinkhorn_iters, s.hc_eps, s.convention == HcConvention::v4,
                               nullptr);
  else
    mixture_form(s.res_form).forward(z.v[2 * n], y.v[2 * n], n);
}

void hc_values(const ResidualSpec& s, const SiteWeights& w, const Soa& q, Wanted wanted, Soa& y) {
  for_wanted(s, wanted, s.streams * s.streams, [&](int i) {
    sinkhorn_kernels().tanh(q.v[i], s.dynamic ? w.scale.f32()[scale_slot(s, i)] : 0.f, w.base.f32()[i], y.v[i]);
  });
}

float fixed_value(const ResidualSpec& s, int i) {
  const int n = static_cast<int>(s.streams);
  if (i < n) return 1.f / static_cast<float>(n);
  if (i < 2 * n) return 1.f;
  return (i - 2 * n) / n == (i - 2 * n) % n ? 1.f : 0.f;
}

// dz of the logits of H_res, with its own working memory; y's part is what the replay gave.
void res_part_backward(const ResidualSpec& s, const SiteWeights& w, const Soa& q, const Soa& dy, Soa& dz, Soa& y) {
  const int n = static_cast<int>(s.streams);
  Soa z;
  affine(s, w, q, z);
  if (s.res_form != ResForm::sinkhorn)
    return mixture_form(s.res_form).backward(z.v[2 * n], dy.v[2 * n], dz.v[2 * n], y.v[2 * n], n);
  WorkerScratch scratch;
  float* history = scratch.take<float>(int64_t{2} * s.sinkhorn_iters * n * kTokens);
  float* work = scratch.take<float>(int64_t{2} * n * n * kTokens);
  sinkhorn_kernels().backward(z.v[2 * n], dy.v[2 * n], dz.v[2 * n], n, s.sinkhorn_iters, s.hc_eps,
                              s.convention == HcConvention::v4, history, work);
  std::copy_n(work, n * n * kTokens, y.v[2 * n]);
}

double sum_tokens(const float* v, int tokens) {
  double sum = 0;
  for (int t = 0; t < tokens; ++t) sum += v[t];
  return sum;
}

void mhc_backward(const ResidualSpec& s, const SiteWeights& w, const Soa& q, const Soa& dy, int tokens, Soa& dq,
                  const MapCotangents& d, Soa& y) {
  const int n = static_cast<int>(s.streams), m = static_cast<int>(s.coefficients());
  const float *scale = w.scale.f32(), *base = w.base.f32();
  Soa dz;
  for (int i = 0; i < n; ++i) {
    sinkhorn_kernels().sigmoid_backward(q.v[i], scale[0], base[i], 1.f, dy.v[i], dz.v[i]);
    sinkhorn_kernels().sigmoid_backward(q.v[n + i], scale[1], base[n + i], 2.f, dy.v[n + i], dz.v[n + i]);
  }
  if (s.learn_res) res_part_backward(s, w, q, dy, dz, y);
  for (int i = 0; i < m; ++i) {
    if (!learned(s, i)) {
      std::fill(dq.v[i], dq.v[i] + kTokens, 0.f);
      continue;
    }
    const int group = scale_slot(s, i);
    double weighted = 0;
    for (int t = 0; t < kTokens; ++t) {
      if (t < tokens) weighted += double{dz.v[i][t]} * q.v[i][t];
      dq.v[i][t] = scale[group] * dz.v[i][t];
    }
    d.d_base[i] += static_cast<float>(sum_tokens(dz.v[i], tokens));
    d.d_scale[group] += static_cast<float>(weighted);
  }
}

void hc_backward(const ResidualSpec& s, const SiteWeights& w, const Soa& q, const Soa& dy, int tokens, Soa& dq,
                 const MapCotangents& d) {
  const int m = static_cast<int>(s.coefficients());
  alignas(64) float dt[kTokens];
  for (int i = 0; i < m; ++i) {
    std::fill(dq.v[i], dq.v[i] + kTokens, 0.f);
    if (!learned(s, i)) continue;
    d.d_base[i] += static_cast<float>(sum_tokens(dy.v[i], tokens));
    if (!s.dynamic) continue;
    const int group = scale_slot(s, i);
    sinkhorn_kernels().tanh_backward(q.v[i], w.scale.f32()[group], dy.v[i], dq.v[i], dt);
    d.d_scale[group] += static_cast<float>(sum_tokens(dt, tokens));
  }
}

}  // namespace

CMat projected_weights(const Exec& exec, const ResidualSpec& s, const SiteWeights& w, Arena& scratch) {
  if (s.kind == ResidualKind::mhc) return w.fn;
  Mat folded = scratch.mat(f32_t, w.fn.rows, w.fn.cols);
  if (exec.dry()) return folded;
  for (int64_t r = 0; r < folded.rows; ++r)
    for (int64_t c = 0; c < folded.cols; ++c) folded.f32(r)[c] = w.fn.f32(r)[c] * w.hc_norm.f32()[c];
  return folded;
}

void site_maps(const ResidualSpec& s, const SiteWeights& w, const float* logits, int tokens, Wanted wanted,
               SiteMaps& maps) {
  const int n = static_cast<int>(s.streams);
  const Wanted computed{wanted.pre && s.learn_pre, wanted.post && s.learn_post, wanted.res && s.learn_res};
  Soa q, y;
  load_soa(s, logits, tokens, computed, q);
  s.kind == ResidualKind::mhc ? mhc_values(s, w, q, computed, y) : hc_values(s, w, q, computed, y);
  for_wanted(s, wanted, s.streams * s.streams, [&](int i) {
    if (!learned(s, i)) std::fill(y.v[i], y.v[i] + kTokens, fixed_value(s, i));
  });
  for (int t = 0; t < tokens && (wanted.pre || wanted.post); ++t) {
    for (int i = 0; i < n && wanted.pre; ++i) maps.pre[t][i] = y.v[i][t];
    for (int i = 0; i < n && wanted.post; ++i) maps.post[t][i] = y.v[n + i][t];
  }
  if (wanted.res) store_res(s, y, tokens, maps);
}

void site_maps_backward(const ResidualSpec& s, const SiteWeights& w, const float* logits, int tokens,
                        const kernels::StreamGradients* grads, const MapCotangents& d, SiteMaps& maps) {
  const int n = static_cast<int>(s.streams), m = static_cast<int>(s.coefficients());
  Soa q, dy, dq, y;
  load_soa(s, logits, tokens, kAllMaps, q);
  for (int t = 0; t < kTokens; ++t) {
    const bool real = t < tokens;
    for (int i = 0; i < n; ++i) {
      dy.v[i][t] = real ? grads[t].pre[i] : 0.f;
      dy.v[n + i][t] = real ? grads[t].post[i] : 0.f;
    }
    for (int k = 0; k < n; ++k)
      for (int j = 0; j < n; ++j) dy.v[2 * n + stored_index(s, k, j)][t] = real ? grads[t].res[k * n + j] : 0.f;
  }
  const bool replayed = s.kind == ResidualKind::mhc && s.learn_res;
  if (!replayed) site_maps(s, w, logits, tokens, {.res = true}, maps);
  if (s.kind == ResidualKind::mhc)
    mhc_backward(s, w, q, dy, tokens, dq, d, y);
  else
    hc_backward(s, w, q, dy, tokens, dq, d);
  if (replayed) store_res(s, y, tokens, maps);
  if (!d.d_logits) return;
  for (int i = 0; i < m; ++i)
    for (int t = 0; t < tokens; ++t) d.d_logits[t * m + logit_slot(s, i)] = dq.v[i][t];
}

void head_weights(const ResidualSpec& s, const HeadWeights& h, const float* logits, int tokens, float* weights) {
  const int n = static_cast<int>(s.streams);
  alignas(64) float q[kTokens] = {}, y[kTokens];
  for (int i = 0; i < n; ++i) {
    for (int t = 0; t < tokens; ++t) q[t] = logits[t * n + i];
    sinkhorn_kernels().sigmoid(q, h.scale.f32()[0], h.base.f32()[i], 1.f, s.hc_eps, y);
    for (int t = 0; t < tokens; ++t) weights[t * n + i] = y[t];
  }
}

void head_weights_backward(const ResidualSpec& s, const HeadWeights& h, const float* logits, int tokens,
                           const float* d_weights, float* d_logits, float* d_base, float* d_scale) {
  const int n = static_cast<int>(s.streams);
  alignas(64) float q[kTokens] = {}, dy[kTokens] = {}, dz[kTokens];
  for (int i = 0; i < n; ++i) {
    for (int t = 0; t < tokens; ++t) {
      q[t] = logits[t * n + i];
      dy[t] = d_weights[t * n + i];
    }
    sinkhorn_kernels().sigmoid_backward(q, h.scale.f32()[0], h.base.f32()[i], 1.f, dy, dz);
    double weighted = 0;
    for (int t = 0; t < tokens; ++t) {
      weighted += double{dz[t]} * q[t];
      d_logits[t * n + i] = h.scale.f32()[0] * dz[t];
    }
    d_base[i] += static_cast<float>(sum_tokens(dz, tokens));
    d_scale[0] += static_cast<float>(weighted);
  }
}

}  // namespace birkhoff::ops
