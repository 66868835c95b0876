// The description of a model: Hugging Face's config.json keys, plus those of interfaces for what they do not cover. One
// table of fields serves parsing, checking, echoing and the list of settings that --set knows.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/block.h"
#include "model/config/names.h"

namespace birkhoff::model {

// One rotary table: blocks name theirs by its place in ModelConfig::rope_specs().
struct RopeSpec {
  int64_t dim = 0;
  double theta = 10000.0;
  ops::RopeScaling scaling;
};

// Of quantization_config, what decides how files keep matrices in FP8: a factor for every block of that size.
struct Quantisation {
  int64_t block_rows = 128, block_cols = 128;
};

// The type that takes every setting, and that a run has when no released one can say what it is.
inline constexpr const char* kOwnType = "birkhoff";

struct ModelConfig {
  std::string model_type = kOwnType;
  int64_t vocab_size = 256, hidden_size = 128, num_hidden_layers = 2;
  int64_t num_attention_heads = 4, num_key_value_heads = 0,
          head_dim = 0;                       // 0: num_attention_heads, hidden_size / heads
  bool qkv_bias = false, qk_norm = false;     // MHA / GQA: biases of q, k, v; RMSNorm of their query and key heads
  int64_t q_lora_rank = 0, kv_lora_rank = 0;  // kv_lora_rank 0: MHA / GQA instead of MLA
  int64_t qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  int64_t index_n_heads = 0, index_head_dim = 0, index_topk = 0;  // index_topk 0: attention sees everything
  int64_t intermediate_size = 0;                                  // dense feed-forward
  int64_t n_routed_experts = 0, n_shared_experts = 0, num_experts_per_tok = 0, moe_intermediate_size = 0;
  int64_t first_k_dense_replace = 0, moe_layer_freq = 1, n_group = 1, topk_group = 1;
  ops::Scoring scoring_func = ops::Scoring::softmax;
  TopkMethod topk_method = TopkMethod::greedy;
  bool norm_topk_prob = false;
  double routed_scaling_factor = 1.0;
  double rope_theta = 10000.0;
  bool rope_interleave = true;  // MLA's decoupled part; MHA / GQA rotate half-split
  ops::RopeScaling rope_scaling;
  double rope_attn_factor =
      0;  // what rope_scaling said under attn_factor, now part of its attention_factor; 0: nothing
  // V4's attention (compress_ratios not empty): per layer 0 (window alone), 4 (CSA) or another ratio (HCA); layers past
  // the list have 0.
  std::vector<int64_t> compress_ratios;
  int64_t sliding_window = 0, o_groups = 1, o_lora_rank = 0;
  double compress_rope_theta = 160000.0;  // of layers that compress; rope_scaling is theirs too
  int64_t num_hash_layers = 0;            // first layers whose experts are looked up by token
  double swiglu_limit = 0;                // 0: none
  int64_t max_position_embeddings = 4096;
  double rms_norm_eps = 1e-6, initializer_range = 0.02;
  bool tie_word_embeddings = false;
  int64_t num_nextn_predict_layers = 0;  // multi-token prediction modules, stored as blocks num_hidden_layers, ...

  ops::ResidualKind residual = ops::ResidualKind::plain;
  int64_t hc_mult = 4, hc_sinkhorn_iters = 20;
  double hc_eps = 1e-6;
  ops::HcConvention hc_convention = ops::HcConvention::v4;
  HcMap hc_pre = HcMap::learned, hc_post = HcMap::learned, hc_res = HcMap::learned;
  HcHead hc_head = HcHead::learned;
  ops::ResForm hc_res_form = ops::ResForm::sinkhorn;
  HcInitPre hc_init_pre = HcInitPre::pattern;
  bool hc_dynamic = true;
  double hc_init_scale = 0.01, hc_init_phi_std = 0.02, hc_init_res_off = -8;

  // MHA / GQA: two rows of q and k that rotate with each other are neighbours, as GGUF files of some architectures keep
  // them, not half a head apart. Of the weights, no setting.
  bool interleaved_rows = false;
  // Where row `row` of a q_proj or k_proj, heads rotating half a head apart, stands among these.
  int64_t rotary_row(int64_t row) const {
    if (!interleaved_rows) return row;
    const int64_t half = head_dim / 2, at = row % head_dim;
    return row - at + (at < half ? 2 * at : 2 * (at - half) + 1);
  }
  LatentAttention latent_attention = LatentAttention::by_role;  // of how it is run, no setting
  Quantisation quantisation;        // read from quantization_config, which stays in unknown_keys
  std::string unknown_keys = "{}";  // JSON text of keys we do not use: kept on re-save

  bool uses_mla() const { return kv_lora_rank > 0; }
  bool uses_compressed_attention() const { return !compress_ratios.empty(); }
  int64_t compress_ratio(int64_t block) const {
    return block < static_cast<int64_t>(compress_ratios.size()) ? compress_ratios[static_cast<size_t>(block)] : 0;
  }
  // Some layer has one: every layer of latent attention, of V4's attention those of ratio 4.
  bool uses_indexer() const;
  bool is_moe_layer(int64_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  int64_t streams() const { return residual == ops::ResidualKind::plain ? 1 : hc_mult; }

  // What the layers are built from.
  BlockSpec block_spec(int64_t block) const;
  layers::Moe::Spec moe_spec(int64_t block) const;  // where block_spec has experts
  std::vector<RopeSpec> rope_specs() const;
  ops::ResidualSpec residual_spec() const;
  int64_t blocks() const { return num_hidden_layers + num_nextn_predict_layers; }
  int64_t rope_dim() const { return uses_mla() || uses_compressed_attention() ? qk_rope_head_dim : head_dim; }

 private:
  layers::Mla::Spec mla_spec() const;
  layers::SparseMla::Spec sparse_mla_spec() const;
  layers::Gqa::Spec gqa_spec() const;
  layers::CompressedAttention::Spec compressed_attention_spec(int64_t block) const;
};

// Checks ranges and contradictions (num_experts_per_tok > n_routed_experts, odd rotary width, groups that do not
// divide, ...) and fills the defaults that depend on other fields. Throws Error naming the key and both values.
void validate(ModelConfig& c);

// From the JSON of a config.json, as its model_type (model_type.h) spells it. Throws Error for an unknown model_type or
// an ill-typed value. Keys nobody knows are kept in unknown_keys.
ModelConfig config_from_json(const nlohmann::json& j);
nlohmann::json config_to_json(const ModelConfig& c);
std::string unknown_key_names(const ModelConfig& c);  // "a, b" of those that nothing reads, or ""
// The released model_type whose config.json says exactly these settings, or kOwnType.
std::string describing_type(const ModelConfig& c);

// Sets one field from JSON; false when the key is no model setting.
bool set_model_field(ModelConfig& c, const std::string& key, const nlohmann::json& value);
std::vector<std::string> model_setting_names();

}  // namespace birkhoff::model
