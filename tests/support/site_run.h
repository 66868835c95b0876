// One site of the residual path with a linear sub-layer, run through the public passes.
#pragma once
#include "ops/residual/residual.h"
#include "ops/residual/residual_backward.h"
#include "reference/hyper_connection.h"
#include "support/matrix.h"

namespace birkhoff::test {

// One site around F(in) = in W^T, run through the public passes: open, close (sum of streams), retreat.
struct SiteRun {
  ops::ResidualSpec spec;
  ops::SiteWeights w, dw;
  Owned x, W, in, y, x_end, h, dx, dy, d_in, dW;
  ops::SiteSaved saved;
  Owned pre, post, res;

  void run(const Exec& exec, Arena& scratch, const Owned& cotangent) {
    const int64_t n = spec.streams, D = spec.dim, T = x.size() / (n * D);
    const DType type = x.view().dtype;
    in = y = h = dy = d_in = Owned(T, D, type);
    x_end = dx = Owned(T, n * D, type);
    pre = post = Owned(T, n);
    res = Owned(T, n * n);
    saved = ops::SiteSaved::take(scratch, spec, T);
    ops::HeadSaved head_saved = ops::HeadSaved::take(scratch, spec, T);
    ops::site_open(exec, spec, w, x, saved, in, scratch);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t o = 0; o < D; ++o) {
        double s = 0;
        for (int64_t i = 0; i < D; ++i) s += in.at(t, i) * W.at(o, i);
        y.set(t * D + o, s);
      }
    ops::site_close(exec, spec, {{w, saved}, x, y}, x_end, {}, head_saved, h, scratch);
    ops::site_coefficients(exec, spec, w, saved, pre, post, res);
    dW = Owned(D, D);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t c = 0; c < D; ++c) {
        double s = 0;
        for (int64_t k = 0; k < n; ++k) s += post.at(t, k) * cotangent.at(t, k * D + c);
        dy.set(t * D + c, s);
      }
      for (int64_t i = 0; i < D; ++i) {
        double s = 0;
        for (int64_t o = 0; o < D; ++o) {
          s += dy.at(t, o) * W.at(o, i);
          dW.set(o * D + i, dW.at(o, i) + dy.at(t, o) * in.at(t, i));
        }
        d_in.set(t * D + i, s);
      }
    }
    ops::site_retreat(exec, spec, {{w, saved}, x, y}, {d_in, cotangent, dx}, dw, {}, scratch);
  }
};

// A site with weights drawn at random, and the same as named tensors for a specification. logit_sd: spread of the
// logits of the maps.
struct RandomSite : SiteRun {
  Owned norm, fn, scale, base, hc_norm, d_norm, d_fn, d_scale, d_base, d_hc_norm;
  reference::Tensors<double> tensors;

  RandomSite(const ops::ResidualSpec& s, int64_t tokens, uint64_t seed, double logit_sd = 1, DType type = DType::f32) {
    spec = s;
    const int64_t n = s.streams, D = s.dim, m = s.coefficients();
    const bool hc = s.kind == ops::ResidualKind::hc;
    x = random(tokens, n * D, seed, 1, type);
    W = random(D, D, seed + 1, 1 / std::sqrt(static_cast<double>(D)));
    const auto make = [&](Owned& v, Owned& d, int64_t rows, int64_t cols, double sd, double mean) {
      v = random(rows, cols, ++seed + 100, sd);
      for (int64_t i = 0; i < v.size(); ++i) v.set(i, v.at(i) + mean);
      d = Owned(rows, cols);
    };
    make(norm, d_norm, 1, D, 0.2, 1);
    if (s.kind != ops::ResidualKind::plain) {
      // The projection of a normalised state of n*D unit channels has a spread of sqrt(n*D) times that of fn.
      make(fn, d_fn, hc ? n + 2 : m, hc ? D : n * D, 1 / std::sqrt(static_cast<double>(hc ? D : n * D)), 0);
      make(scale, d_scale, 1, hc ? 2 : 3, 0.1 * logit_sd, 0.7 * logit_sd);
      make(base, d_base, 1, m, 0.7 * logit_sd, 0);
      if (hc) make(hc_norm, d_hc_norm, 1, D, 0.2, 1);
    }
    w = {norm, fn, scale, base, hc_norm};
    dw = {d_norm, d_fn, d_scale, d_base, d_hc_norm};
    tensors = {{"x", x.values()}, {"W", W.values()}, {"input_norm", norm.values()}};
    if (s.kind == ops::ResidualKind::plain) return;
    tensors["fn"] = fn.values(), tensors["scale"] = scale.values(), tensors["base"] = base.values();
    if (hc) tensors["norm"] = hc_norm.values();
  }

  reference::HyperConnection specification() const {
    reference::HyperConnection hc{};
    hc.kind = spec.kind == ops::ResidualKind::plain ? reference::Residual::plain
              : spec.kind == ops::ResidualKind::hc  ? reference::Residual::hc
                                                    : reference::Residual::mhc;
    hc.n = static_cast<size_t>(spec.streams), hc.dim = static_cast<size_t>(spec.dim);
    hc.v4 = spec.convention == ops::HcConvention::v4;
    hc.iterations = static_cast<size_t>(spec.sinkhorn_iters);
    hc.eps = spec.hc_eps, hc.norm_eps = spec.norm_eps;
    hc.dynamic = spec.dynamic;
    hc.form = spec.res_form == ops::ResForm::lite   ? reference::Form::lite
              : spec.res_form == ops::ResForm::kron ? reference::Form::kron
                                                    : reference::Form::sinkhorn;
    hc.learn_pre = spec.learn_pre, hc.learn_post = spec.learn_post, hc.learn_res = spec.learn_res;
    return hc;
  }

  // X' of all tokens by the specification.
  template <class S>
  std::vector<S> next_state(const reference::Tensors<S>& t) const {
    return specification().linear_site(t);
  }
};

}  // namespace birkhoff::test
