// From the projected logits of a site to the maps its tokens apply, and back, for up to 16 tokens at a time. Internal
// to ops.
#pragma once
#include <type_traits>

#include "kernels/residual/permutations.h"
#include "kernels/residual/sinkhorn.h"
#include "kernels/residual/streams.h"
#include "ops/residual/residual.h"

namespace birkhoff::ops {

inline constexpr int kTokens = kernels::kSoaTokens;
inline constexpr int64_t kTokenBlock = 64;  // tokens that stay in the cache from the first pass over them to the last

inline bool plain(const ResidualSpec& s) { return s.kind == ResidualKind::plain; }
// Whether the coefficients depend on the token.
inline bool projects(const ResidualSpec& s) {
  return s.kind == ResidualKind::mhc || (s.kind == ResidualKind::hc && s.dynamic);
}

// The matrix whose rows the projection reads: fn, or for hc fn with the stream norm's weight folded in.
CMat projected_weights(const Exec& exec, const ResidualSpec& s, const SiteWeights& w, Arena& scratch);

template <class T>
const kernels::StreamKernels<T>& streams() {
  if constexpr (std::is_same_v<T, float>)
    return kernels::stream_kernels().f32;
  else
    return kernels::stream_kernels().b16;
}

// H_pre, H_post and H_res of each token; res[k*n + j] as the forward applies it.
struct SiteMaps {
  float pre[kTokens][kernels::kMaxStreams];
  float post[kTokens][kernels::kMaxStreams];
  float res[kTokens][kernels::kMaxStreams * kernels::kMaxStreams];
};

// The kernels of a form of H_res that has no iterations.
const kernels::MixtureForm& mixture_form(ResForm form);

// Which maps a pass needs: H_res costs the whole Sinkhorn iteration, the others a sigmoid.
struct Wanted {
  bool pre = false, post = false, res = false;
};
inline constexpr Wanted kReadMaps{.pre = true}, kWriteMaps{.post = true, .res = true}, kPostMap{.post = true},
    kAllMaps{true, true, true};

// logits: `tokens` rows of the site's saved logits (null when it has none). Fills the maps wanted.
void site_maps(const ResidualSpec& s, const SiteWeights& w, const float* logits, int tokens, Wanted wanted,
               SiteMaps& maps);

// Where the gradients of the maps lead: to the logits (rows like them; may be null with them), and sums over the tokens
// added to those of the static parts [M] and of the scales [3].
struct MapCotangents {
  float *d_logits, *d_base, *d_scale;
};
// maps.res is filled as well: the replay computes it anyway.
void site_maps_backward(const ResidualSpec& s, const SiteWeights& w, const float* logits, int tokens,
                        const kernels::StreamGradients* grads, const MapCotangents& d, SiteMaps& maps);

// Weights of the learned collapse: sigmoid(scale q + base) + eps, and its gradient.
void head_weights(const ResidualSpec& s, const HeadWeights& h, const float* logits, int tokens, float* weights);
void head_weights_backward(const ResidualSpec& s, const HeadWeights& h, const float* logits, int tokens,
                           const float* d_weights, float* d_logits, float* d_base, float* d_scale);

}  // namespace birkhoff::ops
