// The residual path between sub-layers ("sites"): plain addition, hyper-connections (HC) and manifold-constrained ones
// (mHC). All three have one shape, so that the pass over the wide state is fused from the start:
//
//   open     X_0            -> input of site 0             (read + pre-norm)
//   advance  X_s, y_s       -> X_{s+1}, input of site s+1  (write of s, read of s+1, pre-norm: one pass over X)
//   close    X_last, y_last -> X_end, h                    (write of the last site, collapse of the streams)
// and backwards (residual_backward.h)
//   close_backward    dh              -> dX_end, dy of the last site
//   retreat           d(input of s), dX_{s+1} -> dX_s, dy_{s-1}
//
// X is [T, n*D], stream-major within a row (n = 1 for plain). The input of a site is RMSNorm(u; norm weight): the
// sub-layer's own pre-norm belongs to the pass. Spec: mhc.md 1-3, 8. Coefficients, Sinkhorn and their gradients are
// fp32 always.
#pragma once
#include <cstdint>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

enum class ResidualKind { plain, hc, mhc };
enum class HcConvention { v4, paper };
// How H_res of mhc is made of its logits: Sinkhorn-Knopp; a mixture of all n! permutations (mHC-lite); a Kronecker
// product of 2x2 factors (KromHC).
enum class ResForm { sinkhorn, lite, kron };
inline constexpr int64_t kMaxLiteStreams = 5;
// Logits of H_res a token: n*n; n! for n <= kMaxLiteStreams; 2 log2 n for n = 1, 2, 4, 8.
int64_t res_logits(ResForm form, int64_t n);

struct ResidualSpec {
  ResidualKind kind = ResidualKind::plain;
  int64_t streams = 1, dim = 0;
  float norm_eps = 1e-6f;  // RMSNorm of the sub-layer and of the flattened state
  // mhc
  ResForm res_form = ResForm::sinkhorn;
  int sinkhorn_iters = 20;  // sinkhorn alone
  float hc_eps = 1e-6f;     // v4: added to pre, after the softmax and to every Sinkhorn denominator. paper: 0
  HcConvention convention = HcConvention::v4;
  // hc
  bool dynamic = true;
  // each map learned, or fixed to 1/n, ones, identity
  bool learn_pre = true, learn_post = true, learn_res = true;
  int64_t coefficients() const {
    return 2 * streams + res_logits(res_form, streams);
  }  // M: 2n + n*n but for other forms
};

// Parameters of one site (also its gradient type; all fp32).
//   plain  norm only
//   mhc    fn [M, n*D], scale [1, 3] (pre, post, res), base [1, M]; M = spec.coefficients()
//   hc     fn [n+2, D] (rows: beta, A_m, A_r columns 0..n-1; the stream norm's weight is hc_norm [1, D]),
//          scale [1, 2] (beta, alpha),
//          base [1, n*n+2n]: A_m (n), B (n), A_r (n*n, [j, k] row-major): the same order pre, post, res
struct SiteWeights {
  Mat norm;  // [1, D] pre-norm weight of the sub-layer
  Mat fn, scale, base, hc_norm;
};

// What a site keeps for its backward.
struct SiteSaved {
  Mat logits;     // mhc [T, M] fp32: rho * (fn x), before scale and base. hc [T, n*(n+2)]: per stream normalised
                  // projections
  Mat rstd;       // mhc [T, 1], hc [T, n]: 1/rms of the state
  Mat norm_rstd;  // [T, 1] of the pre-norm
  static SiteSaved take(Arena& arena, const ResidualSpec& spec, int64_t tokens);
};

// Learned collapse of the streams (V4 head): fn [n, n*D], scale [1, 1], base [1, n]; empty fn means the plain sum of
// streams.
struct HeadWeights {
  Mat fn, scale, base;
};
struct HeadSaved {
  Mat logits;  // [T, n] fp32
  Mat rstd;    // [T, 1]
  static HeadSaved take(Arena& arena, const ResidualSpec& spec, int64_t tokens);
};

// embedding [T, D] -> X [T, n*D]: n copies. Backward: d_embedding = sum over streams (assigned).
void expand_forward(const Exec& exec, const ResidualSpec& spec, CMat embedding, Mat x);
void expand_backward(const Exec& exec, const ResidualSpec& spec, CMat dx, Mat d_embedding);

// x [T, n*D] -> in [T, D]; fills saved.
void site_open(const Exec& exec, const ResidualSpec& spec, const SiteWeights& w, CMat x, SiteSaved& saved, Mat in,
               Arena& scratch);
// A site whose input was read: its maps follow from these two.
struct Site {
  const SiteWeights& w;
  const SiteSaved& saved;
};
// A site whose sub-layer has run: its state [T, n*D] and the sub-layer's output [T, D].
struct SiteTensors {
  Site site;
  CMat x, y;
};
// site `from` -> x_next, and in of site `to`. x_next may be the state of `from` (in place).
void site_advance(const Exec& exec, const ResidualSpec& spec, const SiteTensors& from, Mat x_next,
                  const SiteWeights& to, SiteSaved& to_saved, Mat in, Arena& scratch);
// The last site -> x_end (may be its state) and h [T, D].
void site_close(const Exec& exec, const ResidualSpec& spec, const SiteTensors& last, Mat x_end, const HeadWeights& head,
                HeadSaved& head_saved, Mat h, Arena& scratch);

// Coefficients of a site as the forward applies them, fp32: pre [T, n], post [T, n], res [T, n*n] with res[k*n + j] the
// weight of stream j in stream k of the output (H_res itself, whatever the convention stores). For gains, traces and
// tests.
void site_coefficients(const Exec& exec, const ResidualSpec& spec, const SiteWeights& w, const SiteSaved& saved,
                       Mat pre, Mat post, Mat res);
// Weights of the final collapse [T, n].
void head_coefficients(const Exec& exec, const ResidualSpec& spec, const HeadWeights& head, const HeadSaved& saved,
                       Mat weights);

}  // namespace birkhoff::ops
