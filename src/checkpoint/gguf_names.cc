#include "checkpoint/gguf_names.h"

#include <charconv>
#include <string_view>

#include "checkpoint/gguf_rope.h"
#include "model/config/model_type.h"

namespace birkhoff::checkpoint {
namespace {

struct GgufName {
  std::string_view ours, theirs;
};

constexpr GgufName kWholeModel[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                    {"model.norm.weight", "output_norm.weight"},
                                    {"lm_head.weight", "output.weight"},
                                    {"model.hc_head_fn", "output_hc_fn.weight"},
                                    {"model.hc_head_scale", "output_hc_scale.weight"},
                                    {"model.hc_head_base", "output_hc_base.weight"}};

// After "model.layers.N." and "blk.N.".
constexpr GgufName kOfLayer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.q_a_proj.weight", "attn_q_a.weight"},
    {"self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"},
    {"self_attn.q_b_proj.weight", "attn_q_b.weight"},
    {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight"},
    {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"},
    {"self_attn.kv_b_proj.weight", "attn_kv_b.weight"},
    {"self_attn.indexer.wq_b.weight", "indexer.attn_q_b.weight"},
    {"self_attn.indexer.wk.weight", "indexer.attn_k.weight"},
    {"self_attn.indexer.k_norm.weight", "indexer.k_norm.weight"},
    {"self_attn.indexer.k_norm.bias", "indexer.k_norm.bias"},
    {"self_attn.indexer.weights_proj.weight", "indexer.proj.weight"},
    {"hc_attn_fn", "hc_attn_fn.weight"},
    {"hc_attn_scale", "hc_attn_scale.weight"},
    {"hc_attn_base", "hc_attn_base.weight"},
    {"hc_ffn_fn", "hc_ffn_fn.weight"},
    {"hc_ffn_scale", "hc_ffn_scale.weight"},
    {"hc_ffn_base", "hc_ffn_base.weight"},
    {"self_attn.q_a_norm.weight", "attn_q_a_norm.weight"},
    {"self_attn.kv_proj.weight", "attn_kv.weight"},
    {"self_attn.kv_norm.weight", "attn_kv_a_norm.weight"},
    {"self_attn.sinks", "attn_sinks.weight"},
    {"self_attn.o_a_proj.weight", "attn_output_a.weight"},
    {"self_attn.o_b_proj.weight", "attn_output_b.weight"},
    {"self_attn.compressor.kv_proj.weight", "attn_compressor_kv.weight"},
    {"self_attn.compressor.gate_proj.weight", "attn_compressor_gate.weight"},
    {"self_attn.compressor.position_bias", "attn_compressor_ape.weight"},
    {"self_attn.compressor.kv_norm.weight", "attn_compressor_norm.weight"},
    {"self_attn.compressor.indexer.q_b_proj.weight", "indexer.attn_q_b.weight"},
    {"self_attn.compressor.indexer.weights_proj.weight", "indexer.proj.weight"},
    {"self_attn.compressor.indexer.compressor.kv_proj.weight", "indexer_compressor_kv.weight"},
    {"self_attn.compressor.indexer.compressor.gate_proj.weight", "indexer_compressor_gate.weight"},
    {"self_attn.compressor.indexer.compressor.position_bias", "indexer_compressor_ape.weight"},
    {"self_attn.compressor.indexer.compressor.kv_norm.weight", "indexer_compressor_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
    {"mlp.gate.tid2eid", "ffn_gate_tid2eid.weight"},
    {"mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight"},
    {"eh_proj.weight", "nextn.eh_proj.weight"},
    {"enorm.weight", "nextn.enorm.weight"},
    {"hnorm.weight", "nextn.hnorm.weight"},
    {"shared_head.norm.weight", "nextn.shared_head_norm.weight"}};

// "mlp.experts.E.gate_proj.weight": stacked, gate above up in one tensor, or one by one.
void add_expert_places(const model::ModelConfig& c, const model::ParameterInfo& p, std::string_view rest,
                       const std::string& blk, std::vector<GgufPlace>& places) {
  constexpr std::string_view kOfExperts = "mlp.experts.";
  if (!rest.starts_with(kOfExperts)) return;
  rest.remove_prefix(kOfExperts.size());
  int64_t expert = -1;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), expert);
  if (error != std::errc()) return;
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  for (const auto& [ours, theirs] :
       {std::pair{".gate_proj.weight", "gate"}, {".up_proj.weight", "up"}, {".down_proj.weight", "down"}}) {
    if (rest != ours) continue;
    const std::string which = theirs, name = blk + "ffn_" + which;
    places.push_back({name + "_exps.weight", p.rows, 0, expert, c.n_routed_experts});
    if (which != "down")
      places.push_back(
          {blk + "ffn_gate_up_exps.weight", 2 * p.rows, which == "up" ? p.rows : 0, expert, c.n_routed_experts});
    places.push_back({name + "." + std::to_string(expert) + ".weight", p.rows});
  }
}

// q, k and v one above the other.
void add_fused_place(const model::ModelConfig& c, std::string_view rest, const std::string& blk,
                     std::vector<GgufPlace>& places) {
  if (c.uses_mla()) return;
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  for (const auto& [name, first] : {std::pair{"self_attn.q_proj.weight", int64_t{0}},
                                    {"self_attn.k_proj.weight", q},
                                    {"self_attn.v_proj.weight", q + kv}})
    if (rest == name) places.push_back({blk + "attn_qkv.weight", q + 2 * kv, first});
}

// The block of "blk.N.rest", with "rest"; -1 for other names.
int64_t gguf_block_of(std::string_view name, std::string_view& rest) {
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return -1;
  int64_t n = -1;
  const auto [end, error] = std::from_chars(name.data() + kBlock.size(), name.data() + name.size(), n);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return -1;
  rest = name.substr(static_cast<size_t>(end - name.data()) + 1);
  return n;
}

}  // namespace

std::vector<int64_t> GgufPlace::shape(int64_t cols, bool vector) const {
  if (vector) return {cols};
  if (experts) return {experts, rows, cols};
  return {rows, cols};
}

std::vector<GgufPlace> gguf_places(const model::ModelConfig& c, const model::ParameterInfo& p) {
  std::vector<GgufPlace> places;
  for (const auto& [ours, theirs] : kWholeModel)
    if (p.name == ours) return {{std::string(theirs), p.rows}};
  std::string rest;
  const int64_t block = model::types::block_of(p.name, &rest);
  if (block < 0) return places;
  const std::string blk = "blk." + std::to_string(block) + ".";
  for (const auto& [ours, theirs] : kOfLayer)
    if (rest == ours) places.push_back({blk + std::string(theirs), p.rows});
  add_fused_place(c, rest, blk, places);
  add_expert_places(c, p, rest, blk, places);
  return places;
}

GgufSplitLatent gguf_split_latent(const model::ParameterInfo& p) {
  std::string rest;
  const int64_t block = model::types::block_of(p.name, &rest);
  if (block < 0 || rest != "self_attn.kv_b_proj.weight") return {};
  const std::string blk = "blk." + std::to_string(block) + ".";
  return {blk + "attn_k_b.weight", blk + "attn_v_b.weight"};
}

bool gguf_ignores(const model::ModelConfig& c, std::string_view name) {
  if (name == kGgufRopeFactors) return !c.uses_mla();  // read as settings (gguf_rope.h)
  std::string_view rest;
  const int64_t block = gguf_block_of(name, rest);
  if (block < 0) return false;
  return block >= c.blocks() || rest == "attn_rot_embd.weight" || rest == "attn_rot_embd" ||
         rest == "nextn.embed_tokens.weight" || rest == "nextn.shared_head_head.weight" ||
         rest == "exp_probs_b_vl.bias";
}

}  // namespace birkhoff::checkpoint
