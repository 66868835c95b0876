#include "reference/model.h"

#include <cmath>

#include "reference/gemm.h"
#include "reference/norm.h"

namespace birkhoff::reference {

template <class S, class F>
void Model::site(const Tensors<S>& w, std::vector<std::vector<S>>& x, const std::string& hc, const std::string& norm,
                 F&& layer) const {
  std::vector<Maps<S>> maps;
  std::vector<S> in;
  for (const auto& state : x) {
    maps.push_back(residual.maps(w, hc, state));
    const auto u = residual.read(maps.back(), state);
    in.insert(in.end(), u.begin(), u.end());
  }
  const auto y = layer(rms_norm(in, w.at(norm), norm_eps));
  for (size_t t = 0; t < x.size(); ++t) x[t] = residual.write(maps[t], x[t], y.data() + t * residual.dim);
}

template <class S>
std::vector<S> Model::hidden(const Tensors<S>& w, const std::vector<int32_t>& ids, const Places& at,
                             const std::vector<int32_t>& sequences, S& balance) const {
  const size_t T = ids.size(), D = residual.dim;
  std::vector<std::vector<S>> x(T);
  for (size_t t = 0; t < T; ++t)
    for (size_t i = 0; i < residual.n; ++i)
      for (size_t d = 0; d < D; ++d)
        x[t].push_back(w.at("model.embed_tokens.weight")[static_cast<size_t>(ids[t]) * D + d]);
  MixtralPool<S> pool;
  for (size_t l = 0; l < has_experts.size(); ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    site(w, x, p + "hc_attn_", p + "input_layernorm.weight", [&](const std::vector<S>& in) {
      return std::visit([&](const auto& a) { return a(w, p + "self_attn.", in, at); }, attention);
    });
    site(w, x, p + "hc_ffn_", p + "post_attention_layernorm.weight", [&](const std::vector<S>& in) {
      if (!has_experts[l]) return SwiGlu{D, inter}(w, p + "mlp.", in, T);
      auto r = moe(w, p + "mlp.", in, T, sequences, {}, &pool);
      balance += r.balance;
      return r.y;
    });
  }
  if (pool.tokens > 0) balance += moe.balance.mixtral * pool.loss();
  std::vector<S> h;
  for (size_t t = 0; t < T; ++t) {
    const auto o = residual.collapse(w, x[t]);
    h.insert(h.end(), o.begin(), o.end());
  }
  return rms_norm(h, w.at("model.norm.weight"), norm_eps);
}

template <class S>
ModelLoss<S> Model::loss(const Tensors<S>& w, const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
                         const Places& at, const std::vector<int32_t>& sequences) const {
  ModelLoss<S> r;
  const auto h = hidden(w, ids, at, sequences, r.balance);
  const auto logits =
      linear(h, w.at(tied ? "model.embed_tokens.weight" : "lm_head.weight"), ids.size(), residual.dim, vocab);
  for (size_t t = 0; t < ids.size(); ++t) {
    if (labels[t] < 0) continue;
    S sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(logits[t * vocab + v]);
    r.cross_entropy += std::log(sum) - logits[t * vocab + static_cast<size_t>(labels[t])];
    r.z += std::log(sum) * std::log(sum);
  }
  return r;
}

#define BIRKHOFF_INSTANTIATE(S)                                                                                  \
  template ModelLoss<S> Model::loss(const Tensors<S>&, const std::vector<int32_t>&, const std::vector<int32_t>&, \
                                    const Places&, const std::vector<int32_t>&) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
