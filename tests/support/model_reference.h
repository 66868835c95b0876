// The specification of a whole model that a configuration describes.
#pragma once
#include <cmath>
#include <variant>
#include <vector>

#include "model/config/config.h"
#include "reference/model.h"

namespace birkhoff::test {

inline reference::HyperConnection residual_of(const model::ModelConfig& c) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  using reference::Form;
  using reference::Residual;
  return {c.residual == ops::ResidualKind::plain ? Residual::plain
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
}

inline std::variant<reference::Mla, reference::Gqa> attention_of(const model::ModelConfig& c) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  if (!c.uses_mla())
    return reference::Gqa{n(c.hidden_size),
                          n(c.num_attention_heads),
                          n(c.num_key_value_heads),
                          n(c.head_dim),
                          1 / std::sqrt(static_cast<double>(c.head_dim)),
                          c.rope_theta,
                          {c.qkv_bias, c.qk_norm, c.rms_norm_eps}};
  return reference::Mla{n(c.hidden_size),
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
}

inline reference::Moe moe_of(const model::ModelConfig& c, const reference::Balance& balance) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  using reference::Score;
  const Score score = c.scoring_func == ops::Scoring::softmax   ? Score::softmax
                      : c.scoring_func == ops::Scoring::sigmoid ? Score::sigmoid
                                                                : Score::sqrtsoftplus;
  const bool grouped = c.topk_method != model::TopkMethod::greedy;
  return {n(c.hidden_size),
          n(c.moe_intermediate_size),
          n(c.n_shared_experts * c.moe_intermediate_size),
          {score, n(c.n_routed_experts), n(c.num_experts_per_tok), grouped ? n(c.n_group) : 1,
           grouped ? n(c.topk_group) : 1, c.topk_method == model::TopkMethod::noaux_tc, c.norm_topk_prob,
           c.norm_topk_prob && score == Score::softmax ? 1.0 : c.routed_scaling_factor},
          balance};
}

inline reference::Model reference_of(const model::ModelConfig& c, const reference::Balance& balance) {
  std::vector<bool> has_experts;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) has_experts.push_back(c.is_moe_layer(l));
  return {static_cast<size_t>(c.vocab_size),
          static_cast<size_t>(c.intermediate_size),
          c.rms_norm_eps,
          c.tie_word_embeddings,
          has_experts,
          residual_of(c),
          attention_of(c),
          moe_of(c, balance)};
}

}  // namespace birkhoff::test
