#include "reference/layers.h"

#include "reference/attention.h"
#include "reference/gemm.h"
#include "reference/norm.h"

namespace birkhoff::reference {
namespace {

// Columns [first, first + count) of x [rows, cols].
template <class S>
std::vector<S> columns(const std::vector<S>& x, size_t cols, size_t first, size_t count) {
  std::vector<S> out;
  for (size_t r = 0; cols && r < x.size() / cols; ++r)
    for (size_t c = 0; c < count; ++c) out.push_back(x[r * cols + first + c]);
  return out;
}

}  // namespace

template <class S>
void rotate_heads(std::vector<S>& x, const Rope& rope, bool interleaved, const std::vector<int32_t>& position,
                  size_t heads, size_t head_cols, size_t first) {
  const auto dim = static_cast<size_t>(rope.dim);
  for (size_t t = 0; t < position.size(); ++t)
    for (size_t h = 0; h < heads; ++h) {
      S* channel = x.data() + (t * heads + h) * head_cols + first;
      const auto turned = rope.rotate(std::vector<S>(channel, channel + dim), position[t], interleaved);
      for (size_t c = 0; c < dim; ++c) channel[c] = turned[c];
    }
}

template <class S>
Mla::Projections<S> Mla::project(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                                 const Places& at) const {
  const size_t T = at.tokens(), qk = nope + rope_dim;
  const Rope rope{static_cast<int>(rope_dim), theta};
  Projections<S> r;
  if (q_lora) {
    r.latent =
        rms_norm(linear(x, w.at(p + "q_a_proj.weight"), T, dim, q_lora), w.at(p + "q_a_layernorm.weight"), inner_eps);
    r.q = linear(r.latent, w.at(p + "q_b_proj.weight"), T, q_lora, heads * qk);
  } else {
    r.q = linear(x, w.at(p + "q_proj.weight"), T, dim, heads * qk);
  }
  rotate_heads(r.q, rope, interleaved, at.position, heads, qk, nope);

  const auto a = linear(x, w.at(p + "kv_a_proj_with_mqa.weight"), T, dim, kv_lora + rope_dim);
  const auto c = rms_norm(columns(a, kv_lora + rope_dim, 0, kv_lora), w.at(p + "kv_a_layernorm.weight"), inner_eps);
  auto k_rope = columns(a, kv_lora + rope_dim, kv_lora, rope_dim);
  rotate_heads(k_rope, rope, interleaved, at.position, 1, rope_dim, 0);
  const auto u = linear(c, w.at(p + "kv_b_proj.weight"), T, kv_lora, heads * (nope + v));
  for (size_t t = 0; t < T; ++t)
    for (size_t h = 0; h < heads; ++h) {
      const S* head = u.data() + (t * heads + h) * (nope + v);
      r.key.insert(r.key.end(), head, head + nope);
      r.key.insert(r.key.end(), k_rope.begin() + static_cast<std::ptrdiff_t>(t * rope_dim),
                   k_rope.begin() + static_cast<std::ptrdiff_t>((t + 1) * rope_dim));
      r.value.insert(r.value.end(), head + nope, head + nope + v);
    }
  return r;
}

template <class S>
std::vector<S> Mla::operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                               const Places& at) const {
  const size_t T = at.tokens(), qk = nope + rope_dim;
  const auto r = project(w, p, x, at);
  const auto n = [](size_t i) { return static_cast<int64_t>(i); };
  const Attention attention{n(heads), n(heads), n(qk), n(v), scale, n(T), n(T), at.first_key};
  return linear(attention.forward(r.q, r.key, r.value).o, w.at(p + "o_proj.weight"), T, heads * v, dim);
}

template <class S>
SparseMla::Scored<S> SparseMla::score_inputs(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                                             const std::vector<S>& latent, const Places& at) const {
  const size_t T = at.tokens();
  const Rope rope{static_cast<int>(mla.rope_dim), mla.theta};
  Scored<S> r;
  r.q = linear(latent, w.at(p + "indexer.wq_b.weight"), T, mla.q_lora, heads * head_dim);
  rotate_heads(r.q, rope, false, at.position, heads, head_dim, 0);
  r.k = layer_norm(linear(x, w.at(p + "indexer.wk.weight"), T, mla.dim, head_dim), w.at(p + "indexer.k_norm.weight"),
                   w.at(p + "indexer.k_norm.bias"), norm_eps);
  rotate_heads(r.k, rope, false, at.position, 1, head_dim, 0);
  r.w = linear(x, w.at(p + "indexer.weights_proj.weight"), T, mla.dim, heads);
  for (S& v : r.w) v /= std::sqrt(static_cast<double>(heads)) * std::sqrt(static_cast<double>(head_dim));
  return r;
}

template <class S>
KeyLists SparseMla::lists(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at,
                          size_t most) const {
  const auto s = score_inputs(w, p, x, mla.project(w, p, x, at).latent, at);
  std::vector<int32_t> end;
  for (size_t t = 0; t < at.tokens(); ++t) end.push_back(static_cast<int32_t>(t + 1));
  return indexer().select(s.q, s.k, s.w, at.first_key, end, most);
}

template <class S>
std::vector<S> SparseMla::operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                                     const Places& at, const KeyLists& seen) const {
  const auto r = mla.project(w, p, x, at);
  const SparseAttention attention{mla.heads, mla.heads, mla.nope + mla.rope_dim, mla.v, mla.scale, seen};
  return linear(attention.forward(r.q, r.key, r.value, {}).o, w.at(p + "o_proj.weight"), at.tokens(), mla.heads * mla.v,
                mla.dim);
}

template <class S>
S SparseMla::divergence(const Tensors<double>& fixed, const Tensors<S>& w, const std::string& p,
                        const std::vector<double>& x, const Places& at, const KeyLists& seen) const {
  const auto r = mla.project(fixed, p, x, at);
  const SparseAttention attention{mla.heads, mla.heads, mla.nope + mla.rope_dim, mla.v, mla.scale, seen};
  const auto target = attention.target(r.q, r.key, attention.forward(r.q, r.key, r.value, {}).lse, at.tokens());
  const auto s =
      score_inputs(w, p, std::vector<S>(x.begin(), x.end()), std::vector<S>(r.latent.begin(), r.latent.end()), at);
  return indexer().divergence(s.q, s.k, s.w, seen, target, at.tokens());
}

template <class S>
std::vector<S> Gqa::operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                               const Places& at) const {
  const size_t T = at.tokens();
  const Rope rope{static_cast<int>(head_dim), theta};
  auto q = linear(x, w.at(p + "q_proj.weight"), T, dim, heads * head_dim);
  auto k = linear(x, w.at(p + "k_proj.weight"), T, dim, kv_heads * head_dim);
  auto v = linear(x, w.at(p + "v_proj.weight"), T, dim, kv_heads * head_dim);
  inputs.apply(w, p, q, k, v);
  rotate_heads(q, rope, false, at.position, heads, head_dim, 0);
  rotate_heads(k, rope, false, at.position, kv_heads, head_dim, 0);
  const auto n = [](size_t i) { return static_cast<int64_t>(i); };
  const Attention attention{n(heads), n(kv_heads), n(head_dim), n(head_dim), scale, n(T), n(T), at.first_key};
  return linear(attention.forward(q, k, v).o, w.at(p + "o_proj.weight"), T, heads * head_dim, dim);
}

template <class S>
std::vector<S> SwiGlu::operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T) const {
  auto h = linear(x, w.at(p + "gate_proj.weight"), T, dim, inter);
  auto up = linear(x, w.at(p + "up_proj.weight"), T, dim, inter);
  for (size_t i = 0; i < h.size(); ++i) {
    if (real_part(h[i]) > limit) h[i] = limit;
    if (real_part(up[i]) > limit) up[i] = limit;
    if (real_part(up[i]) < -limit) up[i] = -limit;
  }
  for (size_t i = 0; i < h.size(); ++i) h[i] = silu(h[i]) * up[i];
  return linear(h, w.at(p + "down_proj.weight"), T, inter, dim);
}

#define BIRKHOFF_INSTANTIATE(S)                                                                                        \
  template void rotate_heads(std::vector<S>&, const Rope&, bool, const std::vector<int32_t>&, size_t, size_t, size_t); \
  template Mla::Projections<S> Mla::project(const Tensors<S>&, const std::string&, const std::vector<S>&,              \
                                            const Places&) const;                                                      \
  template std::vector<S> Mla::operator()(const Tensors<S>&, const std::string&, const std::vector<S>&, const Places&) \
      const;                                                                                                           \
  template KeyLists SparseMla::lists(const Tensors<S>&, const std::string&, const std::vector<S>&, const Places&,      \
                                     size_t) const;                                                                    \
  template std::vector<S> SparseMla::operator()(const Tensors<S>&, const std::string&, const std::vector<S>&,          \
                                                const Places&, const KeyLists&) const;                                 \
  template S SparseMla::divergence(const Tensors<double>&, const Tensors<S>&, const std::string&,                      \
                                   const std::vector<double>&, const Places&, const KeyLists&) const;                  \
  template std::vector<S> Gqa::operator()(const Tensors<S>&, const std::string&, const std::vector<S>&, const Places&) \
      const;                                                                                                           \
  template std::vector<S> SwiGlu::operator()(const Tensors<S>&, const std::string&, const std::vector<S>&, size_t) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
