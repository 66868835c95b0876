#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"
#include "model/config/config.h"
#include "model/config/fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model {
namespace {

// Where a setting is used; what it may be anywhere, its range says.
void positive(const char* key, int64_t v) {
  if (v < 1) refuse(std::string(key) + ": must be positive, is " + std::to_string(v));
}

// An indexer of MLA (models.md F.1): its first channels rotate as the decoupled part of the keys does.
void validate_indexer(const ModelConfig& c) {
  positive("index_n_heads", c.index_n_heads);
  positive("index_head_dim", c.index_head_dim);
  if (!c.uses_mla())
    refuse("index_topk: " + std::to_string(c.index_topk) + " needs latent attention, kv_lora_rank is 0",
           "set index_topk to 0");
  if (c.q_lora_rank == 0)
    refuse("q_lora_rank: 0, but the indexer reads the query latent", "set q_lora_rank, or index_topk to 0");
  if (c.index_head_dim < c.qk_rope_head_dim)
    refuse("index_head_dim: " + std::to_string(c.index_head_dim) + " is less than qk_rope_head_dim " +
               std::to_string(c.qk_rope_head_dim),
           "the indexer rotates as many channels as the keys do");
}

// V4: one latent head that is key and value, low-rank queries, grouped output projection.
void validate_compressed_attention(ModelConfig& c) {
  if (c.uses_mla())
    refuse("compress_ratios: not together with kv_lora_rank " + std::to_string(c.kv_lora_rank),
           "V4's attention has no latent expansion");
  const auto listed = static_cast<int64_t>(c.compress_ratios.size());
  if (listed < c.num_hidden_layers || listed > c.num_hidden_layers + std::max<int64_t>(1, c.num_nextn_predict_layers))
    refuse("compress_ratios: " + std::to_string(listed) + " entries for num_hidden_layers " +
               std::to_string(c.num_hidden_layers),
           "one for every layer, and one for every prediction module after them");
  bool indexed = false;
  for (const int64_t r : c.compress_ratios) indexed |= r == layers::CompressedAttention::Spec::kIndexedRatio;
  if (c.num_key_value_heads == 0) c.num_key_value_heads = 1;
  if (c.num_key_value_heads != 1)
    refuse("num_key_value_heads: V4's attention has one, not " + std::to_string(c.num_key_value_heads));
  positive("head_dim", c.head_dim);
  positive("qk_rope_head_dim", c.qk_rope_head_dim);
  positive("q_lora_rank", c.q_lora_rank);
  positive("o_lora_rank", c.o_lora_rank);
  positive("o_groups", c.o_groups);
  positive("sliding_window", c.sliding_window);
  if (c.num_attention_heads % c.o_groups)
    refuse("o_groups: " + std::to_string(c.o_groups) + " does not divide num_attention_heads " +
           std::to_string(c.num_attention_heads));
  const auto holds_rope = [&](const char* key, int64_t dim) {
    if (c.qk_rope_head_dim > dim)
      refuse(std::string("qk_rope_head_dim: ") + std::to_string(c.qk_rope_head_dim) + " is more than " + key + " " +
             std::to_string(dim));
  };
  holds_rope("head_dim", c.head_dim);
  if (!indexed) return;
  positive("index_n_heads", c.index_n_heads);
  positive("index_head_dim", c.index_head_dim);
  positive("index_topk", c.index_topk);
  holds_rope("index_head_dim", c.index_head_dim);
}

// What latent attention has no place for.
void require_no_grouped_settings(const ModelConfig& c) {
  const char* because = "for MHA and GQA alone (kv_lora_rank 0, compress_ratios [])";
  if (c.qkv_bias) refuse(std::string("qkv_bias: true is ") + because, "set qkv_bias to false");
  if (c.qk_norm) refuse(std::string("qk_norm: true is ") + because, "set qk_norm to false");
  if (c.rope_scaling.attention_factor != 0)
    refuse("rope_scaling.attention_factor: " + std::to_string(c.rope_scaling.attention_factor) + " is " + because +
               ", and mscale and mscale_all_dim do not give it",
           "express it by mscale");
}

void validate_attention(ModelConfig& c) {
  if (c.uses_compressed_attention() || c.uses_mla()) require_no_grouped_settings(c);
  if (c.uses_compressed_attention()) {
    validate_compressed_attention(c);
  } else if (c.uses_mla()) {
    if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
    positive("qk_nope_head_dim", c.qk_nope_head_dim);
    positive("qk_rope_head_dim", c.qk_rope_head_dim);
    positive("v_head_dim", c.v_head_dim);
  } else {
    if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
    if (c.head_dim == 0) {
      if (c.hidden_size % c.num_attention_heads)
        refuse("num_attention_heads: " + std::to_string(c.num_attention_heads) + " does not divide hidden_size " +
                   std::to_string(c.hidden_size),
               "set head_dim, or a number of heads that divides hidden_size");
      c.head_dim = c.hidden_size / c.num_attention_heads;
    }
    positive("head_dim", c.head_dim);
    positive("num_key_value_heads", c.num_key_value_heads);
    if (c.num_attention_heads % c.num_key_value_heads)
      refuse("num_key_value_heads: " + std::to_string(c.num_key_value_heads) + " does not divide num_attention_heads " +
             std::to_string(c.num_attention_heads));
  }
  if (c.uses_indexer() && !c.uses_compressed_attention()) validate_indexer(c);
  if (c.rope_dim() % 2)
    refuse(std::string(c.uses_mla() || c.uses_compressed_attention() ? "qk_rope_head_dim" : "head_dim") +
           ": rotary width must be even, is " + std::to_string(c.rope_dim()));
}

void validate_experts(const ModelConfig& c) {
  positive("moe_intermediate_size", c.moe_intermediate_size);
  positive("num_experts_per_tok", c.num_experts_per_tok);
  if (c.num_experts_per_tok > c.n_routed_experts)
    refuse("num_experts_per_tok: " + std::to_string(c.num_experts_per_tok) + " is more than n_routed_experts " +
               std::to_string(c.n_routed_experts),
           "a token cannot choose more experts than there are");
  if (c.topk_method == TopkMethod::greedy) return;
  positive("n_group", c.n_group);
  positive("topk_group", c.topk_group);
  if (c.n_routed_experts % c.n_group)
    refuse("n_group: " + std::to_string(c.n_group) + " does not divide n_routed_experts " +
           std::to_string(c.n_routed_experts));
  if (c.topk_group > c.n_group)
    refuse("topk_group: " + std::to_string(c.topk_group) + " is more than n_group " + std::to_string(c.n_group));
  if (c.topk_group * (c.n_routed_experts / c.n_group) < c.num_experts_per_tok)
    refuse("num_experts_per_tok: " + std::to_string(c.num_experts_per_tok) + " is more than the " +
           std::to_string(c.topk_group * (c.n_routed_experts / c.n_group)) + " experts of topk_group groups");
}

// H_res without iterations: not for every number of streams.
void validate_res_form(const ModelConfig& c) {
  const std::string form = std::string("hc_res_form ") + name_of(c.hc_res_form),
                    streams = "hc_mult: " + std::to_string(c.hc_mult) + " streams";
  if (c.hc_res_form == ops::ResForm::lite && c.hc_mult > ops::kMaxLiteStreams)
    refuse(streams + " have more than 120 permutations, and " + form + " has a logit for each",
           "at most " + std::to_string(ops::kMaxLiteStreams) + " streams, or hc_res_form=sinkhorn");
  if (c.hc_res_form == ops::ResForm::kron && (c.hc_mult & (c.hc_mult - 1)))
    refuse(streams + " are no power of two, and " + form + " is a product of 2x2 factors",
           "1, 2, 4 or 8 streams, or hc_res_form=sinkhorn");
  if (c.hc_sinkhorn_iters != ModelConfig{}.hc_sinkhorn_iters)
    refuse("hc_sinkhorn_iters: " + std::to_string(c.hc_sinkhorn_iters) + ", but " + form + " does not iterate",
           "leave hc_sinkhorn_iters out, or set hc_res_form=sinkhorn");
}

}  // namespace

void validate(ModelConfig& c) {
  find_model_type(c.model_type);
  for_each_field(std::as_const(c), CheckRange{});
  validate_attention(c);
  bool any_dense = false;
  for (int64_t i = 0; i < c.blocks(); ++i) any_dense |= !c.is_moe_layer(i);
  if (any_dense) positive("intermediate_size", c.intermediate_size);
  if (c.n_routed_experts > 0) validate_experts(c);
  if (c.residual == ops::ResidualKind::mhc && c.hc_res_form != ops::ResForm::sinkhorn) validate_res_form(c);
  validate_type(c);
}

}  // namespace birkhoff::model
