// The residual path of one token by its equations: plain, hyper-connections (mhc.md 2) and manifold-constrained ones
// (mhc.md 1.2, 3.2), on any scalar. A state is n streams of `dim` channels, stream-major.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "reference/tensors.h"

namespace birkhoff::reference {

enum class Residual { plain, hc, mhc };
enum class Form { sinkhorn, lite, kron };  // of mhc's H_res: mhc.md 1.2 and 3.3; arXiv 2601.05732; arXiv 2601.21579

template <class S>
struct Maps {
  std::vector<S> pre, post, res;  // res[k*n + j]: weight of stream j in stream k of the next state
};

struct HyperConnection {
  Residual kind;
  size_t n, dim;
  bool v4 = true;
  size_t iterations = 20;
  double eps = 1e-6, norm_eps = 1e-6;  // eps: v4 only
  bool dynamic = true;                 // hc
  bool learn_pre = true, learn_post = true, learn_res = true;
  Form form = Form::sinkhorn;

  // H_res of the logits z [n, n] as they are stored.
  template <class S>
  std::vector<S> sinkhorn(std::vector<S> m) const;

  // H_res of its logits.
  template <class S>
  std::vector<S> mixing(const std::vector<S>& z) const;

  // p: prefix of the site, e.g. "model.layers.0.hc_attn_".
  template <class S>
  Maps<S> maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const;

  template <class S>
  std::vector<S> read(const Maps<S>& m, const std::vector<S>& x) const;
  template <class S>
  std::vector<S> write(const Maps<S>& m, const std::vector<S>& x, const S* y) const;
  // Sum of the streams, or the learned collapse when the head has weights.
  template <class S>
  std::vector<S> collapse(const Tensors<S>& w, const std::vector<S>& x) const;

  // The next states of all states "x" of a site around y = W in, whose input is normed by "input_norm".
  template <class S>
  std::vector<S> linear_site(const Tensors<S>& t) const;

 private:
  template <class S>
  std::vector<S> transposed(const std::vector<S>& m) const;

  // A weighted mean of all permutation matrices, the identity first.
  template <class S>
  std::vector<S> lite(const std::vector<S>& z) const;

  // The Kronecker product of matrices [[a, b], [b, a]], (a, b) = softmax of two logits.
  template <class S>
  std::vector<S> kron(const std::vector<S>& z) const;

  size_t res_logits() const;

  // fn x / rms(x): the projection of a whole state.
  template <class S>
  std::vector<S> project(const std::vector<S>& fn, const std::vector<S>& x, size_t out) const;

  template <class S>
  Maps<S> mhc_maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const;

  // base: A_m (n), B (n), A_r [j, k]. fn rows: W_beta, W_m, then the columns of W_r.
  template <class S>
  Maps<S> hc_maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const;
};

}  // namespace birkhoff::reference
