// A whole model by its equations: embedding, sites, collapse, final norm, head, and the training loss. Tensors go by
// their names in a checkpoint; sizes and rules come from a configuration.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/config/config.h"
#include "reference/hyper_connection.h"
#include "reference/moe.h"

namespace birkhoff::reference {

template <class S>
struct ModelLoss {
  S cross_entropy = 0, z = 0, balance = 0;  // sums over counted tokens; sum over layers
};

class Model {
 public:
  Model(const model::ModelConfig& c, const Balance& balance) : c_(c) {
    const auto n = [](int64_t i) { return static_cast<size_t>(i); };
    hc_ = {c.residual == ops::ResidualKind::plain ? Residual::plain
           : c.residual == ops::ResidualKind::hc  ? Residual::hc
                                                  : Residual::mhc,
           n(c.streams()),
           n(c.hidden_size),
           c.hc_convention == ops::HcConvention::v4,
           n(c.hc_sinkhorn_iters),
           static_cast<double>(static_cast<float>(c.hc_eps)),
           c.rms_norm_eps,
           c.hc_dynamic,
           c.hc_pre == model::HcMap::learned,
           c.hc_post == model::HcMap::learned,
           c.hc_res == model::HcMap::learned,
           c.hc_res_form == ops::ResForm::lite   ? Form::lite
           : c.hc_res_form == ops::ResForm::kron ? Form::kron
                                                 : Form::sinkhorn};
    if (c.uses_mla())
      mla_ = {n(c.hidden_size),
              n(c.num_attention_heads),
              n(c.qk_nope_head_dim),
              n(c.qk_rope_head_dim),
              n(c.v_head_dim),
              n(c.q_lora_rank),
              n(c.kv_lora_rank),
              1 / std::sqrt(static_cast<double>(c.qk_nope_head_dim + c.qk_rope_head_dim)),
              1e-6,
              c.rope_theta,
              c.rope_interleave};
    else
      gqa_ = {n(c.hidden_size),
              n(c.num_attention_heads),
              n(c.num_key_value_heads),
              n(c.head_dim),
              1 / std::sqrt(static_cast<double>(c.head_dim)),
              c.rope_theta,
              {c.qkv_bias, c.qk_norm, c.rms_norm_eps}};
    if (c.n_routed_experts == 0) return;
    const Score score = c.scoring_func == ops::Scoring::softmax   ? Score::softmax
                        : c.scoring_func == ops::Scoring::sigmoid ? Score::sigmoid
                                                                  : Score::sqrtsoftplus;
    const bool grouped = c.topk_method != model::TopkMethod::greedy;
    moe_ = {n(c.hidden_size),
            n(c.moe_intermediate_size),
            n(c.n_shared_experts * c.moe_intermediate_size),
            {score, n(c.n_routed_experts), n(c.num_experts_per_tok), grouped ? n(c.n_group) : 1,
             grouped ? n(c.topk_group) : 1, c.topk_method == model::TopkMethod::noaux_tc, c.norm_topk_prob,
             c.norm_topk_prob && score == Score::softmax ? 1.0 : c.routed_scaling_factor},
            balance};
  }

  // Final hidden states [T, D], after the norm. choices: expert indices of every MoE layer, when not null.
  template <class S>
  std::vector<S> hidden(const Tensors<S>& w, const std::vector<int32_t>& ids, const Places& at,
                        const std::vector<int32_t>& sequences, S* balance,
                        std::vector<std::vector<size_t>>* choices = nullptr) const {
    const size_t T = ids.size(), D = hc_.dim;
    std::vector<std::vector<S>> x(T);
    for (size_t t = 0; t < T; ++t)
      for (size_t i = 0; i < hc_.n; ++i)
        for (size_t d = 0; d < D; ++d)
          x[t].push_back(w.at("model.embed_tokens.weight")[static_cast<size_t>(ids[t]) * D + d]);
    MixtralPool<S> pool;
    for (int64_t l = 0; l < c_.num_hidden_layers; ++l) {
      const std::string p = "model.layers." + std::to_string(l) + ".";
      site(w, x, p + "hc_attn_", p + "input_layernorm.weight", [&](const std::vector<S>& in) {
        return c_.uses_mla() ? mla_(w, p + "self_attn.", in, at) : gqa_(w, p + "self_attn.", in, at);
      });
      site(w, x, p + "hc_ffn_", p + "post_attention_layernorm.weight", [&](const std::vector<S>& in) {
        if (!c_.is_moe_layer(l)) return SwiGlu{D, static_cast<size_t>(c_.intermediate_size)}(w, p + "mlp.", in, T);
        auto r = moe_(w, p + "mlp.", in, T, sequences, {}, &pool);
        if (balance) *balance += r.balance;
        if (choices) choices->push_back(r.index);
        return r.y;
      });
    }
    if (balance && pool.tokens > 0) *balance += moe_.balance.mixtral * pool.loss();
    std::vector<S> h;
    for (size_t t = 0; t < T; ++t) {
      const auto o = hc_.collapse(w, x[t]);
      h.insert(h.end(), o.begin(), o.end());
    }
    return rms_norm(h, w.at("model.norm.weight"), c_.rms_norm_eps);
  }

  // labels: next tokens, negative where ignored.
  template <class S>
  ModelLoss<S> loss(const Tensors<S>& w, const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
                    const Places& at, const std::vector<int32_t>& sequences) const {
    ModelLoss<S> r;
    const auto h = hidden(w, ids, at, sequences, &r.balance);
    const auto V = static_cast<size_t>(c_.vocab_size);
    const auto logits = linear(h, w.at(c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"),
                               ids.size(), hc_.dim, V);
    for (size_t t = 0; t < ids.size(); ++t) {
      if (labels[t] < 0) continue;
      S sum = 0;
      for (size_t v = 0; v < V; ++v) sum += std::exp(logits[t * V + v]);
      r.cross_entropy += std::log(sum) - logits[t * V + static_cast<size_t>(labels[t])];
      r.z += std::log(sum) * std::log(sum);
    }
    return r;
  }

 private:
  template <class S, class F>
  void site(const Tensors<S>& w, std::vector<std::vector<S>>& x, const std::string& hc, const std::string& norm,
            F&& layer) const {
    std::vector<Maps<S>> maps;
    std::vector<S> in;
    for (const auto& state : x) {
      maps.push_back(hc_.maps(w, hc, state));
      const auto u = hc_.read(maps.back(), state);
      in.insert(in.end(), u.begin(), u.end());
    }
    const auto y = layer(rms_norm(in, w.at(norm), c_.rms_norm_eps));
    for (size_t t = 0; t < x.size(); ++t) x[t] = hc_.write(maps[t], x[t], y.data() + t * hc_.dim);
  }

  model::ModelConfig c_;
  HyperConnection hc_;
  Mla mla_;
  Gqa gqa_;
  Moe moe_;
};

}  // namespace birkhoff::reference
