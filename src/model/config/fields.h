// The one table of a model's settings: parsing, checking, echoing and the list that --set knows read it.
#pragma once
#include "model/config/config.h"
#include "model/config/range.h"

namespace birkhoff::model {

// Sizes are bounded so that products of three of them fit 64 bits.
inline constexpr int64_t kMaxSize = int64_t{1} << 24, kMaxLayers = 10000, kMaxExperts = 1024;

// f(key, field), for numbers f(key, field, range), for every setting but rope_scaling, which is an object
// (rope_settings.h).
template <class C, class F>
void for_each_field(C& c, F&& f) {
  f("model_type", c.model_type);
  f("vocab_size", c.vocab_size, Range{1, kMaxSize});
  f("hidden_size", c.hidden_size, Range{1, kMaxSize});
  f("num_hidden_layers", c.num_hidden_layers, Range{1, kMaxLayers});
  f("num_attention_heads", c.num_attention_heads, Range{1, kMaxSize});
  f("num_key_value_heads", c.num_key_value_heads, Range{0, kMaxSize});
  f("head_dim", c.head_dim, Range{0, kMaxSize});
  f("qkv_bias", c.qkv_bias);
  f("qk_norm", c.qk_norm);
  f("q_lora_rank", c.q_lora_rank, Range{0, kMaxSize});
  f("kv_lora_rank", c.kv_lora_rank, Range{0, kMaxSize});
  f("qk_nope_head_dim", c.qk_nope_head_dim, Range{0, kMaxSize});
  f("qk_rope_head_dim", c.qk_rope_head_dim, Range{0, kMaxSize});
  f("v_head_dim", c.v_head_dim, Range{0, kMaxSize});
  f("index_n_heads", c.index_n_heads, Range{0, kMaxSize});
  f("index_head_dim", c.index_head_dim, Range{0, kMaxSize});
  f("index_topk", c.index_topk, Range{0, kMaxSize});
  f("intermediate_size", c.intermediate_size, Range{0, kMaxSize});
  f("n_routed_experts", c.n_routed_experts, Range{0, kMaxExperts});
  f("n_shared_experts", c.n_shared_experts, Range{0, kMaxExperts});
  f("num_experts_per_tok", c.num_experts_per_tok, Range{0, kMaxExperts});
  f("moe_intermediate_size", c.moe_intermediate_size, Range{0, kMaxSize});
  f("first_k_dense_replace", c.first_k_dense_replace, Range{0, kMaxSize});
  f("moe_layer_freq", c.moe_layer_freq, Range{1, kMaxSize});
  f("n_group", c.n_group, Range{0, kMaxExperts});
  f("topk_group", c.topk_group, Range{0, kMaxExperts});
  f("scoring_func", c.scoring_func);
  f("topk_method", c.topk_method);
  f("norm_topk_prob", c.norm_topk_prob);
  f("routed_scaling_factor", c.routed_scaling_factor, Range{0, 1e6, Range::above});
  f("rope_theta", c.rope_theta, Range{1, 1e12, Range::above});
  f("rope_interleave", c.rope_interleave);
  f("compress_ratios", c.compress_ratios, Range{0, kMaxSize});
  f("sliding_window", c.sliding_window, Range{0, kMaxSize});
  f("o_groups", c.o_groups, Range{0, kMaxSize});
  f("o_lora_rank", c.o_lora_rank, Range{0, kMaxSize});
  f("compress_rope_theta", c.compress_rope_theta, Range{1, 1e12, Range::above});
  f("num_hash_layers", c.num_hash_layers, Range{0, kMaxLayers});
  f("swiglu_limit", c.swiglu_limit, Range{0, 1e6});
  f("max_position_embeddings", c.max_position_embeddings, Range{1, kMaxSize});
  f("rms_norm_eps", c.rms_norm_eps, Range{0, 1, Range::above});
  f("initializer_range", c.initializer_range, Range{0, 10});
  f("tie_word_embeddings", c.tie_word_embeddings);
  f("num_nextn_predict_layers", c.num_nextn_predict_layers, Range{0, kMaxLayers});
  f("residual", c.residual);
  f("hc_mult", c.hc_mult, Range{1, 8});
  f("hc_sinkhorn_iters", c.hc_sinkhorn_iters, Range{1, 1000});
  f("hc_eps", c.hc_eps, Range{0, 1});
  f("hc_convention", c.hc_convention);
  f("hc_dynamic", c.hc_dynamic);
  f("hc_pre", c.hc_pre);
  f("hc_post", c.hc_post);
  f("hc_res", c.hc_res);
  f("hc_res_form", c.hc_res_form);
  f("hc_head", c.hc_head);
  f("hc_init_scale", c.hc_init_scale, Range{-1000, 1000});
  f("hc_init_phi_std", c.hc_init_phi_std, Range{0, 10});
  f("hc_init_pre", c.hc_init_pre);
  f("hc_init_res_off", c.hc_init_res_off, Range{-1000, 1000});
}

// Throws Error("config").
[[noreturn]] void refuse(const std::string& what, const std::string& hint = "");

}  // namespace birkhoff::model
