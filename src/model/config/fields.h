// The one table of a model's settings: parsing, checking, echoing and the list that --set knows read it.
#pragma once
#include "model/config/config.h"

namespace birkhoff::model {

// f(key, field) for every setting but rope_scaling, which is an object (rope_settings.h).
template <class C, class F>
void for_each_field(C& c, F&& f) {
  f("model_type", c.model_type);
  f("vocab_size", c.vocab_size);
  f("hidden_size", c.hidden_size);
  f("num_hidden_layers", c.num_hidden_layers);
  f("num_attention_heads", c.num_attention_heads);
  f("num_key_value_heads", c.num_key_value_heads);
  f("head_dim", c.head_dim);
  f("q_lora_rank", c.q_lora_rank);
  f("kv_lora_rank", c.kv_lora_rank);
  f("qk_nope_head_dim", c.qk_nope_head_dim);
  f("qk_rope_head_dim", c.qk_rope_head_dim);
  f("v_head_dim", c.v_head_dim);
  f("index_n_heads", c.index_n_heads);
  f("index_head_dim", c.index_head_dim);
  f("index_topk", c.index_topk);
  f("intermediate_size", c.intermediate_size);
  f("n_routed_experts", c.n_routed_experts);
  f("n_shared_experts", c.n_shared_experts);
  f("num_experts_per_tok", c.num_experts_per_tok);
  f("moe_intermediate_size", c.moe_intermediate_size);
  f("first_k_dense_replace", c.first_k_dense_replace);
  f("moe_layer_freq", c.moe_layer_freq);
  f("n_group", c.n_group);
  f("topk_group", c.topk_group);
  f("scoring_func", c.scoring_func);
  f("topk_method", c.topk_method);
  f("norm_topk_prob", c.norm_topk_prob);
  f("routed_scaling_factor", c.routed_scaling_factor);
  f("rope_theta", c.rope_theta);
  f("rope_interleave", c.rope_interleave);
  f("compress_ratios", c.compress_ratios);
  f("sliding_window", c.sliding_window);
  f("o_groups", c.o_groups);
  f("o_lora_rank", c.o_lora_rank);
  f("compress_rope_theta", c.compress_rope_theta);
  f("num_hash_layers", c.num_hash_layers);
  f("swiglu_limit", c.swiglu_limit);
  f("max_position_embeddings", c.max_position_embeddings);
  f("rms_norm_eps", c.rms_norm_eps);
  f("initializer_range", c.initializer_range);
  f("tie_word_embeddings", c.tie_word_embeddings);
  f("num_nextn_predict_layers", c.num_nextn_predict_layers);
  f("residual", c.residual);
  f("hc_mult", c.hc_mult);
  f("hc_sinkhorn_iters", c.hc_sinkhorn_iters);
  f("hc_eps", c.hc_eps);
  f("hc_convention", c.hc_convention);
  f("hc_dynamic", c.hc_dynamic);
  f("hc_pre", c.hc_pre);
  f("hc_post", c.hc_post);
  f("hc_res", c.hc_res);
  f("hc_res_form", c.hc_res_form);
  f("hc_head", c.hc_head);
  f("hc_init_scale", c.hc_init_scale);
  f("hc_init_phi_std", c.hc_init_phi_std);
  f("hc_init_pre", c.hc_init_pre);
  f("hc_init_res_off", c.hc_init_res_off);
}

}  // namespace birkhoff::model
