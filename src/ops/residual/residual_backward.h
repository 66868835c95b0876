// Backward of the residual path (mhc.md 8.2), in the reverse order of residual.h.
#pragma once
#include <optional>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/residual/residual.h"

namespace birkhoff::ops {

// Gradients of parameters are added (+=), of activations assigned.
// Through the write of a site: dy [T, D], of its sub-layer's output, from the gradient of the state after it.
struct SiteWriteGradient {
  Site site;
  Mat dy;
};

// The collapse of the streams x [T, n*D] after the last site.
struct HeadTensors {
  const HeadWeights& w;
  const HeadSaved& saved;
  CMat x;
};
// accumulate: dx holds a gradient that x has from elsewhere (prediction modules read the streams), which counts too.
struct HeadCotangents {
  CMat dh;
  Mat dx;
  bool accumulate = false;
};
// dh -> dx; then through the write of the last site. The part of dX that flows through H_res is left to retreat(),
// which needs dx again.
void site_close_backward(const Exec& exec, const ResidualSpec& spec, const HeadTensors& head, const HeadCotangents& d,
                         HeadWeights& d_head, const SiteWriteGradient& last, Arena& scratch);

// Of a site's input, of the state after it, and of its own state (may be dx_next).
struct SiteCotangents {
  CMat d_in, dx_next;
  Mat dx;
};
// d_in, dx_next -> dx, and parameter gradients of `at` including its pre-norm; then through the write of the site
// before it, if there is one.
void site_retreat(const Exec& exec, const ResidualSpec& spec, const SiteTensors& at, const SiteCotangents& d,
                  SiteWeights& d_at, const std::optional<SiteWriteGradient>& before, Arena& scratch);

}  // namespace birkhoff::ops
