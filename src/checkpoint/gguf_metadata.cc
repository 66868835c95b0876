#include "checkpoint/gguf_metadata.h"

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace birkhoff::checkpoint {
namespace {

using Kind = ops::RopeScaling::Kind;

[[noreturn]] void no_place(const std::string& what,
                           const std::string& hint = "run the directory with birkhoff, or convert it with --out") {
  throw Error("gguf", "birkhoff writes no GGUF files with " + what, hint);
}

// The first setting that a config.json of deepseek_v4 cannot say, or "".
std::string unlike_v4(model::ModelConfig c) {
  c.unknown_keys = "{}";
  model::ModelConfig v4 = c;
  v4.model_type = "deepseek_v4";
  try {
    v4 = model::config_from_json(model::config_to_json(v4));
  } catch (const Error& e) {
    return e.what();
  }
  v4.model_type = c.model_type;
  const nlohmann::json ours = model::config_to_json(c), theirs = model::config_to_json(v4);
  for (const auto& [key, value] : ours.items())
    if (theirs.at(key) != value) return key + " " + value.dump();
  return "";
}

// deepseek4 is V4 as released.
void require_v4(const model::ModelConfig& c) {
  if (const std::string why = unlike_v4(c); !why.empty())
    no_place("the compressed attention of DeepSeek-V4 (compress_ratios) and what V4 does not have: " + why);
  if (c.n_shared_experts == 0) no_place("experts without shared ones (n_shared_experts 0)");
  if (c.rope_scaling.kind != Kind::none && c.rope_scaling.kind != Kind::yarn)
    no_place(std::string("rope_scaling ") + name_of(c.rope_scaling.kind) + " with compress_ratios");
}

// What no architecture of llama.cpp has.
void require_known_parts(const model::ModelConfig& c) {
  if (c.residual != ops::ResidualKind::plain)
    no_place(std::string("hyper-connections (residual ") + name_of(c.residual) + ", " + std::to_string(c.hc_mult) +
             " streams)");
  if (c.num_hash_layers > 0)
    no_place("experts by token id (num_hash_layers " + std::to_string(c.num_hash_layers) + ")");
  if (c.swiglu_limit > 0) no_place("swiglu_limit " + std::to_string(c.swiglu_limit));
  if (c.n_routed_experts > 0 && c.moe_layer_freq != 1)
    no_place("moe_layer_freq " + std::to_string(c.moe_layer_freq) +
             ": all layers after the first dense ones have experts");
  if (!c.uses_mla() && c.num_nextn_predict_layers > 0) no_place("prediction modules without latent attention");
}

ops::RouterRule rule_of(const model::ModelConfig& c) { return c.moe_spec(c.first_k_dense_replace).rule; }

std::string attention_with_experts(const model::ModelConfig& c) {
  const ops::RouterRule rule = rule_of(c);
  if (c.qkv_bias || c.qk_norm) no_place("experts behind attention with qkv_bias or qk_norm");
  if (rule.scoring != ops::Scoring::softmax || rule.bias || rule.groups > 1 || rule.scaling != 1)
    no_place(
        "experts chosen as DeepSeek-V3 does (scoring_func, groups, routed_scaling_factor) without latent attention");
  if (c.n_shared_experts == 0 && c.first_k_dense_replace == 0 && rule.normalise) return "llama";
  if (c.n_shared_experts > 0 && !rule.normalise) return "deepseek";
  no_place(rule.normalise ? "normalised weights of experts (norm_topk_prob) beside shared experts or dense layers"
                          : "experts without shared ones whose weights are not normalised (norm_topk_prob false)");
}

void require_latent_experts(const model::ModelConfig& c) {
  if (!c.rope_interleave) no_place("rope_interleave false");
  if (c.uses_indexer() && c.scoring_func != ops::Scoring::sigmoid)
    no_place(std::string("a lightning indexer (index_topk ") + std::to_string(c.index_topk) + ") beside scoring_func " +
             name_of(c.scoring_func) + ": DeepSeek-V3.2 has sigmoid");
  if (c.n_routed_experts == 0) return;
  const ops::RouterRule rule = rule_of(c);
  const bool sigmoid = rule.scoring == ops::Scoring::sigmoid;
  if (c.n_shared_experts == 0) no_place("experts without shared ones (n_shared_experts 0)");
  if (!sigmoid && rule.scoring != ops::Scoring::softmax)
    no_place(std::string("scoring_func ") + name_of(c.scoring_func) + " with latent attention");
  if (sigmoid != rule.bias)
    no_place(std::string("topk_method ") + name_of(c.topk_method) + " with scoring_func " + name_of(c.scoring_func));
}

// Scaling that is a key of its own; Llama 3's is a tensor.
void put_rope(io::GgufMetadata& m, const std::string& a, const model::ModelConfig& c) {
  const ops::RopeScaling& s = c.rope_scaling;
  m.put(a + ".rope.freq_base", static_cast<float>(c.rope_theta));
  m.put(a + ".rope.dimension_count", static_cast<uint32_t>(c.rope_dim()));
  if (s.kind == Kind::none) return;
  if (s.kind == Kind::llama3) {
    if (a != "llama") no_place("rope_scaling llama3 of the architecture " + a);
    return;
  }
  if (s.kind == Kind::linear && c.uses_mla()) no_place("rope_scaling linear with latent attention");
  m.put(a + ".rope.scaling.type", s.kind == Kind::linear ? "linear" : "yarn");
  m.put(a + ".rope.scaling.factor", static_cast<float>(s.factor));
  if (s.kind == Kind::linear) return;
  m.put(a + ".rope.scaling.original_context_length", static_cast<uint32_t>(s.original_max_position));
  m.put(a + ".rope.scaling.yarn_beta_fast", static_cast<float>(s.beta_fast));
  m.put(a + ".rope.scaling.yarn_beta_slow", static_cast<float>(s.beta_slow));
  if (c.uses_compressed_attention()) return;  // which does not scale the rotation
  const double gain = ops::rope_gain(s), usual = c.uses_mla() ? 1 : ops::yarn_mscale(s.factor, 1);
  if (c.uses_mla()) {
    if (std::abs(gain - usual) > 1e-6 || s.mscale_all_dim == 0)
      no_place("mscale " + std::to_string(s.mscale) + " and mscale_all_dim " + std::to_string(s.mscale_all_dim) +
               " with latent attention: they are taken as equal and not 0");
    m.put(a + ".rope.scaling.yarn_log_multiplier", static_cast<float>(0.1 * s.mscale_all_dim));
  } else if (std::abs(gain - usual) > 1e-6) {
    m.put(a + ".rope.scaling.attn_factor", static_cast<float>(gain / usual));
  }
}

void put_heads(io::GgufMetadata& m, const std::string& a, const model::ModelConfig& c) {
  const auto put = [&](const char* name, int64_t v) { m.put(a + ".attention." + name, static_cast<uint32_t>(v)); };
  put("head_count", c.num_attention_heads);
  const auto put_indexer = [&] {
    put("indexer.head_count", c.index_n_heads);
    put("indexer.key_length", c.index_head_dim);
    put("indexer.top_k", c.index_topk);
  };
  if (!c.uses_mla()) {
    put("head_count_kv", c.num_key_value_heads);
    put("key_length", c.head_dim);
    put("value_length", c.head_dim);
    if (!c.uses_compressed_attention()) return;
    put("q_lora_rank", c.q_lora_rank);
    put("output_group_count", c.o_groups);
    put("output_lora_rank", c.o_lora_rank);
    put("sliding_window", c.sliding_window);
    const std::vector<int32_t> ratios(c.compress_ratios.begin(), c.compress_ratios.end());
    m.put(a + ".attention.compress_ratios", ratios);
    m.put(a + ".attention.compress_rope_freq_base", static_cast<float>(c.compress_rope_theta));
    return put_indexer();
  }
  // The latent form is one key head; the expanded widths stand beside it.
  put("head_count_kv", 1);
  put("key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  put("value_length", c.kv_lora_rank);
  put("key_length_mla", c.qk_nope_head_dim + c.qk_rope_head_dim);
  put("value_length_mla", c.v_head_dim);
  put("kv_lora_rank", c.kv_lora_rank);
  if (c.q_lora_rank > 0) put("q_lora_rank", c.q_lora_rank);
  if (c.uses_indexer()) put_indexer();
}

void put_hyper_connections(io::GgufMetadata& m, const std::string& a, const model::ModelConfig& c) {
  m.put(a + ".hyper_connection.count", static_cast<uint32_t>(c.hc_mult));
  m.put(a + ".hyper_connection.sinkhorn_iterations", static_cast<uint32_t>(c.hc_sinkhorn_iters));
  m.put(a + ".hyper_connection.epsilon", static_cast<float>(c.hc_eps));
  m.put(a + ".embedding_length_out", static_cast<uint32_t>(c.hc_mult * c.hidden_size));
}

int gating_func(const model::ModelConfig& c) {
  switch (c.scoring_func) {
    case ops::Scoring::sigmoid:
      return 2;
    case ops::Scoring::sqrtsoftplus:
      return 4;
    default:
      return 1;
  }
}

void put_experts(io::GgufMetadata& m, const std::string& a, const model::ModelConfig& c) {
  const auto put = [&](const char* name, int64_t v) { m.put(a + "." + name, static_cast<uint32_t>(v)); };
  const bool latent = c.uses_mla(), v4 = c.uses_compressed_attention();
  if (c.n_routed_experts == 0) {
    if (!latent) return;
    // deepseek2 and deepseek32 have experts; without any all their layers are dense ones.
    put("leading_dense_block_count", c.num_hidden_layers);
    put("expert_feed_forward_length", c.intermediate_size);
    put("expert_shared_count", 0);
    if (c.uses_indexer()) put("expert_gating_func", gating_func(c));
    return;
  }
  const ops::RouterRule rule = rule_of(c);
  put("expert_count", c.n_routed_experts);
  put("expert_used_count", c.num_experts_per_tok);
  if (a == "llama") return;
  put("expert_feed_forward_length", c.moe_intermediate_size);
  put("expert_shared_count", c.n_shared_experts);
  if (!v4) put("leading_dense_block_count", c.first_k_dense_replace);
  m.put(a + ".expert_weights_scale", rule.scaling);
  if (!latent && !v4) return;
  m.put(a + ".expert_weights_norm", rule.normalise);
  put("expert_gating_func", gating_func(c));
  if (v4) {
    const std::vector<float> limits(static_cast<size_t>(gguf_blocks(c)), static_cast<float>(c.swiglu_limit));
    m.put(a + ".swiglu_clamp_exp", limits);
    m.put(a + ".swiglu_clamp_shexp", limits);
    return put("hash_layer_count", c.num_hash_layers);
  }
  if (rule.groups > 1) {
    put("expert_group_count", rule.groups);
    put("expert_group_used_count", rule.active_groups);
  }
}

void note_indexer(const model::ModelConfig& c, std::vector<std::string>& notes) {
  // It multiplies them by Hadamard matrices: one of a whole head for V3.2, for V4 parts of 64 rows and more.
  const auto dim = static_cast<uint64_t>(c.index_head_dim);
  if (dim % 64 || (c.uses_mla() && !std::has_single_bit(dim)))
    notes.push_back("llama.cpp computes heads of an indexer of 64, 128, ... numbers, this model has index_head_dim " +
                    std::to_string(dim) + ": it will stop");
  const ops::RopeScaling& s = c.rope_scaling;
  if (c.uses_mla() && s.kind == Kind::yarn && s.mscale != 1)
    notes.push_back("llama.cpp takes mscale 1 with a lightning indexer, this model has " + std::to_string(s.mscale) +
                    ": it will compute otherwise");
}

void note_v4(const model::ModelConfig& c, std::vector<std::string>& notes) {
  if (c.num_nextn_predict_layers > 0)
    notes.push_back("the prediction modules are left out: llama.cpp has no place for the collapse of their streams");
  if (c.hc_mult != 4)
    notes.push_back("llama.cpp computes 4 streams alone, this model has " + std::to_string(c.hc_mult) +
                    ": it will stop");
  for (const int64_t r : c.compress_ratios)
    if (r != 0 && r != 4 && r != 128) {
      notes.push_back("llama.cpp opens compress_ratios 0, 4 and 128 alone, this model has " + std::to_string(r));
      break;
    }
}

}  // namespace

int64_t gguf_blocks(const model::ModelConfig& c) {
  return c.uses_compressed_attention() ? c.num_hidden_layers : c.blocks();
}

std::string gguf_architecture(const model::ModelConfig& c) {
  if (c.uses_compressed_attention()) {
    require_v4(c);
    return "deepseek4";
  }
  require_known_parts(c);
  if (c.uses_mla()) {
    require_latent_experts(c);
    return c.uses_indexer() ? "deepseek32" : "deepseek2";
  }
  if (c.qkv_bias && c.qk_norm) no_place("qkv_bias and qk_norm at once");
  const std::string a = c.n_routed_experts > 0 ? attention_with_experts(c)
                        : c.qkv_bias           ? "qwen2"
                        : c.qk_norm            ? "qwen3"
                                               : "llama";
  const int64_t wide = c.num_attention_heads * c.head_dim;
  if ((a == "qwen2" || a == "deepseek") && wide != c.hidden_size)
    no_place(std::to_string(c.num_attention_heads) + " heads of " + std::to_string(c.head_dim) + " with hidden_size " +
             std::to_string(c.hidden_size) + " of the architecture " + a);
  return a;
}

void put_gguf_settings(io::GgufMetadata& m, const model::ModelConfig& c) {
  const std::string a = gguf_architecture(c);
  const auto put = [&](const char* name, int64_t v) { m.put(a + "." + name, static_cast<uint32_t>(v)); };
  m.put("general.architecture", a);
  put("block_count", gguf_blocks(c));
  put("context_length", c.max_position_embeddings);
  put("embedding_length", c.hidden_size);
  if (!c.uses_compressed_attention())
    put("feed_forward_length", a == "llama" && c.n_routed_experts > 0 ? c.moe_intermediate_size : c.intermediate_size);
  put("vocab_size", c.vocab_size);
  m.put(a + ".attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_norm_eps));
  put_heads(m, a, c);
  put_rope(m, a, c);
  put_experts(m, a, c);
  if (c.uses_compressed_attention()) return put_hyper_connections(m, a, c);
  if (c.num_nextn_predict_layers > 0) put("nextn_predict_layers", c.num_nextn_predict_layers);
}

std::vector<std::string> gguf_notes(const model::ModelConfig& c) {
  std::vector<std::string> notes;
  const ops::RopeScaling& s = c.rope_scaling;
  if (s.kind == Kind::yarn && (s.beta_fast != 32 || s.beta_slow != 1))
    notes.push_back("llama.cpp takes 32 and 1 for beta_fast and beta_slow, this model has " +
                    std::to_string(s.beta_fast) + " and " + std::to_string(s.beta_slow) +
                    ": it will compute otherwise");
  if (c.uses_indexer()) note_indexer(c, notes);
  if (c.uses_compressed_attention()) note_v4(c, notes);
  if (!c.uses_mla()) return notes;
  const int64_t layers = c.num_hidden_layers;
  const bool lite = layers == 26 || layers == 27 || (layers == 48 && c.vocab_size == 128256);
  if (!c.uses_indexer() && lite != (c.q_lora_rank == 0))
    notes.push_back("llama.cpp tells by the number of layers whether there is a q_lora_rank: it will not open " +
                    std::to_string(layers) + " layers with" + (c.q_lora_rank == 0 ? "out" : "") + " one");
  if (c.n_routed_experts == 0) return notes;
  if (const ops::RouterRule rule = rule_of(c); rule.groups > 1 && rule.scoring == ops::Scoring::softmax)
    notes.push_back("llama.cpp ranks a group of experts by its two best, this model by the best: logits will differ");
  return notes;
}

}  // namespace birkhoff::checkpoint
