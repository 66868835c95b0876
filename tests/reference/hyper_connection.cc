#include "reference/hyper_connection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/norm.h"

namespace birkhoff::reference {
namespace {

template <class S>
S sigmoid(S x) {
  return 1.0 / (1.0 + std::exp(-x));
}

// Divides every line of m [n, n] by (its sum + e): rows (sum over the second index) or columns.
template <class S>
void normalise(std::vector<S>& m, size_t n, bool rows, double e) {
  for (size_t a = 0; a < n; ++a) {
    S sum = e;
    for (size_t b = 0; b < n; ++b) sum += m[rows ? a * n + b : b * n + a];
    for (size_t b = 0; b < n; ++b) m[rows ? a * n + b : b * n + a] /= sum;
  }
}

template <class S>
std::vector<S> softmax(std::vector<S> z) {
  double top = -INFINITY;
  for (const S& v : z) top = std::max(top, real_part(v));
  S sum = 0;
  for (S& v : z) sum += v = std::exp(v - top);
  for (S& v : z) v /= sum;
  return z;
}

}  // namespace

template <class S>
std::vector<S> HyperConnection::sinkhorn(std::vector<S> m) const {
  double top = -INFINITY;
  for (const S& v : m) top = std::max(top, real_part(v));
  for (S& v : m) v = std::exp(v - top);
  if (!v4) {
    for (size_t t = 0; t < iterations; ++t) {
      normalise(m, n, false, 0);
      normalise(m, n, true, 0);
    }
    return m;
  }
  normalise(m, n, true, 0);  // softmax over the destination
  for (S& v : m) v += eps;
  normalise(m, n, false, eps);
  for (size_t t = 1; t < iterations; ++t) {
    normalise(m, n, true, eps);
    normalise(m, n, false, eps);
  }
  return transposed(m);
}

template <class S>
std::vector<S> HyperConnection::transposed(const std::vector<S>& m) const {
  std::vector<S> h(n * n);
  for (size_t j = 0; j < n; ++j)
    for (size_t k = 0; k < n; ++k) h[k * n + j] = m[j * n + k];
  return h;
}

template <class S>
std::vector<S> HyperConnection::lite(const std::vector<S>& z) const {
  std::vector<size_t> to(n);
  std::iota(to.begin(), to.end(), size_t{0});
  std::vector<S> m(n * n, S(0));
  for (const S& w : softmax(z)) {
    for (size_t a = 0; a < n; ++a) m[a * n + to[a]] += w;
    std::next_permutation(to.begin(), to.end());
  }
  return m;
}

template <class S>
std::vector<S> HyperConnection::kron(const std::vector<S>& z) const {
  std::vector<S> m{S(1)};
  size_t size = 1;
  for (size_t f = 0; f < z.size(); f += 2, size *= 2) {
    const auto u = softmax(std::vector<S>{z[f], z[f + 1]});
    std::vector<S> product(4 * size * size);
    for (size_t r = 0; r < 2 * size; ++r)
      for (size_t c = 0; c < 2 * size; ++c)
        product[r * 2 * size + c] = m[r / 2 * size + c / 2] * u[r % 2 == c % 2 ? 0 : 1];
    m = product;
  }
  return m;
}

size_t HyperConnection::res_logits() const {
  size_t factorial = 1, log2 = 0;
  for (size_t k = 2; k <= n; ++k) factorial *= k;
  while (size_t{1} << (log2 + 1) <= n) ++log2;
  return form == Form::sinkhorn ? n * n : form == Form::lite ? factorial : 2 * log2;
}

template <class S>
std::vector<S> HyperConnection::mixing(const std::vector<S>& z) const {
  if (form == Form::sinkhorn) return sinkhorn(z);
  const std::vector<S> stored = form == Form::lite ? lite(z) : kron(z);
  return v4 ? transposed(stored) : stored;
}

template <class S>
std::vector<S> HyperConnection::project(const std::vector<S>& fn, const std::vector<S>& x, size_t out) const {
  S squares = 0;
  for (const S& v : x) squares += v * v;
  const S rho = 1.0 / std::sqrt(squares / static_cast<double>(n * dim) + norm_eps);
  std::vector<S> q(out, S(0));
  for (size_t i = 0; i < out; ++i) {
    for (size_t c = 0; c < n * dim; ++c) q[i] += fn[i * n * dim + c] * x[c];
    q[i] *= rho;
  }
  return q;
}

template <class S>
Maps<S> HyperConnection::maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const {
  Maps<S> m;
  m.pre.assign(n, S(1.0 / static_cast<double>(n)));
  m.post.assign(n, S(1));
  m.res.assign(n * n, S(0));
  for (size_t i = 0; i < n; ++i) m.res[i * n + i] = 1;
  if (kind == Residual::plain) return m;
  Maps<S> l = kind == Residual::mhc ? mhc_maps(w, p, x) : hc_maps(w, p, x);
  if (learn_pre) m.pre = l.pre;
  if (learn_post) m.post = l.post;
  if (learn_res) m.res = l.res;
  return m;
}

template <class S>
Maps<S> HyperConnection::mhc_maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const {
  const auto& base = w.at(p + "base");
  const auto& scale = w.at(p + "scale");
  const size_t count = 2 * n + res_logits();
  const auto q = project(w.at(p + "fn"), x, count);
  Maps<S> m;
  std::vector<S> z;
  for (size_t i = 0; i < n; ++i) m.pre.push_back(sigmoid(scale[0] * q[i] + base[i]) + (v4 ? eps : 0.0));
  for (size_t i = n; i < 2 * n; ++i) m.post.push_back(2.0 * sigmoid(scale[1] * q[i] + base[i]));
  for (size_t i = 2 * n; i < count; ++i) z.push_back(scale[2] * q[i] + base[i]);
  m.res = mixing(z);
  return m;
}

template <class S>
Maps<S> HyperConnection::hc_maps(const Tensors<S>& w, const std::string& p, const std::vector<S>& x) const {
  const auto& base = w.at(p + "base");
  Maps<S> m{
      std::vector<S>(base.begin(), base.begin() + static_cast<std::ptrdiff_t>(n)),
      std::vector<S>(base.begin() + static_cast<std::ptrdiff_t>(n), base.begin() + static_cast<std::ptrdiff_t>(2 * n)),
      std::vector<S>(n * n)};
  for (size_t j = 0; j < n; ++j)
    for (size_t k = 0; k < n; ++k) m.res[k * n + j] = base[2 * n + j * n + k];
  if (!dynamic) return m;
  const auto &fn = w.at(p + "fn"), &scale = w.at(p + "scale");
  for (size_t j = 0; j < n; ++j) {
    const std::vector<S> stream(x.begin() + static_cast<std::ptrdiff_t>(j * dim),
                                x.begin() + static_cast<std::ptrdiff_t>((j + 1) * dim));
    const auto hbar = rms_norm(stream, w.at(p + "norm"), norm_eps);
    const auto along = [&](size_t row) {
      S s = 0;
      for (size_t c = 0; c < dim; ++c) s += hbar[c] * fn[row * dim + c];
      return s;
    };
    m.post[j] += std::tanh(along(0)) * scale[0];
    m.pre[j] += std::tanh(along(1)) * scale[1];
    for (size_t k = 0; k < n; ++k) m.res[k * n + j] += std::tanh(along(2 + k)) * scale[1];
  }
  return m;
}

template <class S>
std::vector<S> HyperConnection::read(const Maps<S>& m, const std::vector<S>& x) const {
  std::vector<S> u(dim, S(0));
  for (size_t i = 0; i < n; ++i)
    for (size_t c = 0; c < dim; ++c) u[c] += m.pre[i] * x[i * dim + c];
  return u;
}

template <class S>
std::vector<S> HyperConnection::write(const Maps<S>& m, const std::vector<S>& x, const S* y) const {
  std::vector<S> next(n * dim, S(0));
  for (size_t k = 0; k < n; ++k)
    for (size_t c = 0; c < dim; ++c) {
      for (size_t j = 0; j < n; ++j) next[k * dim + c] += m.res[k * n + j] * x[j * dim + c];
      next[k * dim + c] += m.post[k] * y[c];
    }
  return next;
}

template <class S>
std::vector<S> HyperConnection::collapse(const Tensors<S>& w, const std::vector<S>& x) const {
  Maps<S> m;
  m.pre.assign(n, S(1));
  if (w.count("model.hc_head_fn")) {
    const auto q = project(w.at("model.hc_head_fn"), x, n);
    for (size_t i = 0; i < n; ++i)
      m.pre[i] = sigmoid(w.at("model.hc_head_scale")[0] * q[i] + w.at("model.hc_head_base")[i]) + (v4 ? eps : 0.0);
  }
  return read(m, x);
}

template <class S>
std::vector<S> HyperConnection::linear_site(const Tensors<S>& t) const {
  const auto wide = n * dim;
  const auto &all = t.at("x"), &W = t.at("W");
  std::vector<S> out;
  for (size_t row = 0; row < all.size() / wide; ++row) {
    const std::vector<S> state(all.begin() + static_cast<std::ptrdiff_t>(row * wide),
                               all.begin() + static_cast<std::ptrdiff_t>((row + 1) * wide));
    Maps<S> m = maps(t, "", state);
    if (kind == Residual::plain) m.pre = {S(1)};
    const auto in = rms_norm(read(m, state), t.at("input_norm"), norm_eps);
    std::vector<S> y(dim, S(0));
    for (size_t o = 0; o < dim; ++o)
      for (size_t i = 0; i < dim; ++i) y[o] += in[i] * W[o * dim + i];
    const auto next = write(m, state, y.data());
    out.insert(out.end(), next.begin(), next.end());
  }
  return out;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                               \
  template std::vector<S> HyperConnection::sinkhorn(std::vector<S>) const;                                    \
  template std::vector<S> HyperConnection::mixing(const std::vector<S>&) const;                               \
  template Maps<S> HyperConnection::maps(const Tensors<S>&, const std::string&, const std::vector<S>&) const; \
  template std::vector<S> HyperConnection::read(const Maps<S>&, const std::vector<S>&) const;                 \
  template std::vector<S> HyperConnection::write(const Maps<S>&, const std::vector<S>&, const S*) const;      \
  template std::vector<S> HyperConnection::collapse(const Tensors<S>&, const std::vector<S>&) const;          \
  template std::vector<S> HyperConnection::linear_site(const Tensors<S>&) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
