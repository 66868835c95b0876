#include <algorithm>
#include <cmath>

#include "model/config/config.h"
#include "model/config/model_type.h"

namespace birkhoff::model {

bool ModelConfig::uses_indexer() const {
  if (index_topk <= 0) return false;
  return !uses_compressed_attention() || std::count(compress_ratios.begin(), compress_ratios.end(),
                                                    layers::CompressedAttention::Spec::kIndexedRatio) > 0;
}

layers::Mla::Spec ModelConfig::mla_spec() const {
  layers::Mla::Spec s;
  s.dim = hidden_size;
  s.heads = num_attention_heads;
  s.nope = qk_nope_head_dim;
  s.rope = qk_rope_head_dim;
  s.v = v_head_dim;
  s.q_lora = q_lora_rank;
  s.kv_lora = kv_lora_rank;
  double scale = 1.0 / std::sqrt(static_cast<double>(s.qk()));
  if (rope_scaling.kind == ops::RopeScaling::Kind::yarn && rope_scaling.mscale_all_dim != 0) {
    const double m = ops::yarn_mscale(rope_scaling.factor, rope_scaling.mscale_all_dim);
    scale *= m * m;
  }
  s.scale = static_cast<float>(scale);
  s.layout = rope_interleave ? ops::RopeLayout::interleaved : ops::RopeLayout::half_split;
  s.keeps_expanded = latent_attention == LatentAttention::expanded;
  return s;
}

layers::SparseMla::Spec ModelConfig::sparse_mla_spec() const {
  layers::SparseMla::Spec s;
  s.mla = mla_spec();
  s.indexer.dim = hidden_size;
  s.indexer.q_lora = q_lora_rank;
  s.indexer.heads = index_n_heads;
  s.indexer.head_dim = index_head_dim;
  s.indexer.topk = index_topk;
  return s;
}

layers::Gqa::Spec ModelConfig::gqa_spec() const {
  return {hidden_size,
          num_attention_heads,
          num_key_value_heads,
          head_dim,
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))),
          interleaved_rows ? ops::RopeLayout::interleaved : ops::RopeLayout::half_split,
          qkv_bias,
          qk_norm,
          static_cast<float>(rms_norm_eps)};
}

layers::CompressedAttention::Spec ModelConfig::compressed_attention_spec(int64_t block) const {
  layers::CompressedAttention::Spec s;
  s.dim = hidden_size;
  s.heads = num_attention_heads;
  s.head_dim = head_dim;
  s.rope = qk_rope_head_dim;
  s.q_lora = q_lora_rank;
  s.groups = o_groups;
  s.o_lora = o_lora_rank;
  s.window = sliding_window;
  s.ratio = compress_ratio(block);
  if (s.indexed()) {
    s.index_heads = index_n_heads;
    s.index_dim = index_head_dim;
    s.index_topk = index_topk;
  }
  s.eps = static_cast<float>(rms_norm_eps);
  return s;
}

layers::Moe::Spec ModelConfig::moe_spec(int64_t block) const {
  layers::Moe::Spec s;
  if (swiglu_limit > 0) s.limit = static_cast<float>(swiglu_limit);
  const bool hashed =
      block < std::min(num_hash_layers, num_hidden_layers);  // a prediction module never is (models.md G.8)
  if (hashed) s.hash_vocab = vocab_size;
  s.dim = hidden_size;
  s.inter = moe_intermediate_size;
  s.shared_inter = n_shared_experts * moe_intermediate_size;
  s.rule.scoring = scoring_func;
  s.rule.experts = n_routed_experts;
  s.rule.active = num_experts_per_tok;
  if (topk_method != TopkMethod::greedy) {
    s.rule.groups = n_group;
    s.rule.active_groups = topk_group;
  }
  s.rule.bias = topk_method == TopkMethod::noaux_tc && !hashed;
  // The softmax models normalise when there is more than one (models.md D.5), Mixtral always (B).
  s.rule.normalise = norm_topk_prob && (scoring_func != ops::Scoring::softmax || num_experts_per_tok > 1 ||
                                        find_model_type(model_type).always_normalises);
  // V2 multiplies by the factor only where it does not normalise (models.md D.5); V3 and V4 do both.
  s.rule.scaling =
      s.rule.normalise && scoring_func == ops::Scoring::softmax ? 1.f : static_cast<float>(routed_scaling_factor);
  return s;
}

ops::ResidualSpec ModelConfig::residual_spec() const {
  ops::ResidualSpec s;
  s.kind = residual;
  s.streams = streams();
  s.dim = hidden_size;
  s.norm_eps = static_cast<float>(rms_norm_eps);
  if (s.kind == ops::ResidualKind::mhc) s.res_form = hc_res_form;
  s.sinkhorn_iters = static_cast<int>(hc_sinkhorn_iters);
  s.convention = hc_convention;
  s.hc_eps = s.convention == ops::HcConvention::v4 ? static_cast<float>(hc_eps) : 0.f;
  s.dynamic = hc_dynamic;
  s.learn_pre = hc_pre == HcMap::learned;
  s.learn_post = hc_post == HcMap::learned;
  s.learn_res = hc_res == HcMap::learned;
  return s;
}

BlockSpec ModelConfig::block_spec(int64_t block) const {
  BlockSpec b;
  if (uses_mla() && uses_indexer())
    b.attn = sparse_mla_spec();
  else if (uses_mla())
    b.attn = mla_spec();
  else if (uses_compressed_attention())
    b.attn = compressed_attention_spec(block);
  else
    b.attn = gqa_spec();
  if (is_moe_layer(block))
    b.ffn = moe_spec(block);
  else
    b.ffn = layers::DenseFfn::Spec{hidden_size, intermediate_size,
                                   swiglu_limit > 0 ? static_cast<float>(swiglu_limit) : ops::kNoLimit};
  b.rope = compress_ratio(block) > 0;
  return b;
}

std::vector<RopeSpec> ModelConfig::rope_specs() const {
  if (!uses_compressed_attention()) return {{rope_dim(), rope_theta, rope_scaling}};
  ops::RopeScaling plain = rope_scaling;  // V4 scales positions of compressing layers, and no magnitude (models.md G.3)
  plain.mscale = plain.mscale_all_dim = 0;
  return {{rope_dim(), rope_theta, {}}, {rope_dim(), compress_rope_theta, plain}};
}

}  // namespace birkhoff::model
