// Small models with lively weights: every term of every formula contributes, unlike at initialisation.
#pragma once
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "model/config/json_fields.h"
#include "model/transformer.h"
#include "reference/tensors.h"
#include "support/matrix.h"

namespace birkhoff::test {

inline const Exec& one_thread() {
  static const Exec exec(1);
  return exec;
}

// Two layers, the second with experts; sizes that are no multiples of vector widths.
inline model::ModelConfig small_config(const std::string& residual = "plain", int64_t streams = 4, bool mla = true) {
  model::ModelConfig c;
  c.residual = model::named<ops::ResidualKind>("residual", residual);
  c.hc_mult = streams;
  c.vocab_size = 23, c.hidden_size = 20, c.num_hidden_layers = 2, c.num_attention_heads = 2;
  if (mla) {
    c.kv_lora_rank = 9, c.q_lora_rank = 11, c.qk_nope_head_dim = 6, c.qk_rope_head_dim = 4, c.v_head_dim = 7;
  } else {
    c.num_key_value_heads = 1, c.head_dim = 6;
  }
  c.intermediate_size = 18, c.first_k_dense_replace = 1;
  c.n_routed_experts = 4, c.num_experts_per_tok = 2, c.n_shared_experts = 1, c.moe_intermediate_size = 10;
  c.scoring_func = ops::Scoring::sigmoid, c.topk_method = model::TopkMethod::noaux_tc, c.norm_topk_prob = true,
  c.routed_scaling_factor = 1.5;
  c.max_position_embeddings = 512;
  return c;
}

// Grouped-query attention with biases and norms of heads, which no released type has both, over dense networks.
inline model::ModelConfig small_qwen_config(bool bias = true, bool norm = true) {
  model::ModelConfig c = small_config("plain", 1, false);
  c.n_routed_experts = c.n_shared_experts = 0;
  c.num_attention_heads = 4, c.num_key_value_heads = 2;
  c.qkv_bias = bias, c.qk_norm = norm;
  if (bias != norm) c.model_type = bias ? "qwen2" : "qwen3";
  return c;
}

inline model::ModelConfig with_form(model::ModelConfig c, const char* hc_res_form) {
  c.hc_res_form = model::named<ops::ResForm>("hc_res_form", hc_res_form);
  return c;
}

// Wide enough for several tasks of every op, with all that decides: experts, groups, documents.
inline model::ModelConfig wide_config(const std::string& residual) {
  model::ModelConfig c = small_config(residual, 4);
  c.vocab_size = 256, c.hidden_size = 72, c.num_attention_heads = 3, c.kv_lora_rank = 40, c.q_lora_rank = 48,
  c.qk_nope_head_dim = 24, c.qk_rope_head_dim = 8, c.v_head_dim = 24;
  c.intermediate_size = 150, c.n_routed_experts = 8, c.num_experts_per_tok = 3, c.n_group = 4, c.topk_group = 2,
  c.moe_intermediate_size = 40;
  return c;
}

// DeepSeek-V4 in small: a layer of every kind (window alone and hash routing, CSA, HCA), sizes that are no multiples of
// vector widths.
inline model::ModelConfig small_v4_config() {
  model::ModelConfig c;
  c.model_type = "deepseek_v4";
  c.residual = ops::ResidualKind::mhc;
  c.vocab_size = 23, c.hidden_size = 20, c.num_hidden_layers = 3, c.num_attention_heads = 4, c.head_dim = 10,
  c.qk_rope_head_dim = 4;
  c.q_lora_rank = 11, c.o_groups = 2, c.o_lora_rank = 5, c.sliding_window = 5, c.compress_ratios = {0, 4, 6, 0};
  c.index_n_heads = 2, c.index_head_dim = 6, c.index_topk = 2;
  c.n_routed_experts = 4, c.num_experts_per_tok = 2, c.n_shared_experts = 1, c.moe_intermediate_size = 10,
  c.num_hash_layers = 1;
  c.scoring_func = ops::Scoring::sqrtsoftplus, c.topk_method = model::TopkMethod::noaux_tc, c.norm_topk_prob = true,
  c.routed_scaling_factor = 1.5, c.swiglu_limit = 2;
  c.max_position_embeddings = 512;
  c.rope_scaling.kind = ops::RopeScaling::Kind::yarn, c.rope_scaling.factor = 4,
  c.rope_scaling.original_max_position = 64;
  return c;
}

// Several tasks of every op; window, entries of both kinds and the indexer's number are all exceeded within 80 tokens.
inline model::ModelConfig wide_v4_config() {
  model::ModelConfig c = small_v4_config();
  c.vocab_size = 256, c.hidden_size = 72, c.num_attention_heads = 4, c.head_dim = 24, c.qk_rope_head_dim = 8,
  c.q_lora_rank = 48, c.o_lora_rank = 20;
  c.sliding_window = 12, c.compress_ratios = {0, 4, 16, 0}, c.index_n_heads = 3, c.index_head_dim = 16,
  c.index_topk = 5;
  c.n_routed_experts = 8, c.num_experts_per_tok = 3, c.moe_intermediate_size = 40;
  return c;
}

inline double lively_value(layers::Role role, const Mat& m, double normal) {
  using layers::Role;
  switch (role) {
    case Role::norm:
      return 1 + 0.2 * normal;
    case Role::bias:
    case Role::linear_bias:
    case Role::position_bias:
    case Role::router_bias:
      return 0.1 * normal;
    case Role::hc_scale:
      return 0.7 + 0.2 * normal;
    case Role::hc_base:
      return 0.8 * normal;
    case Role::embedding:
      return normal;
    default:
      return normal / std::sqrt(static_cast<double>(m.cols));
  }
}

// Model, gradients and working memory of one training step.
class SmallModel {
 public:
  SmallModel(model::ModelConfig c, DType compute, uint64_t seed, const Exec& exec, int64_t positions = 512)
      : memory_(size_t{64} << 20), kept(size_t{256} << 20), scratch(size_t{256} << 20), grads(c) {
    model::validate(c);
    m = std::make_unique<model::Model>(c, compute, positions, true, memory_);
    grads = model::Weights(c);
    elements = model::parameter_elements(m->parameters);
    grad_block = memory_.take<float>(elements);
    model::bind(grads, grad_block);
    uint64_t stream = 0;
    m->weights.for_each([&](const std::string&, Mat t, layers::Role role) {
      const Rng rng(seed, stream++);
      for (int64_t i = 0; i < t.size(); ++i)
        t.f32()[i] = role == layers::Role::expert_table
                         ? static_cast<float>((i * 7 + i / t.cols) % c.n_routed_experts)
                         : static_cast<float>(lively_value(role, t, rng.normal(static_cast<uint64_t>(i))));
    });
    m->refresh(exec);
  }

 private:
  Arena memory_;  // before the views into it

 public:
  Arena kept, scratch;
  std::unique_ptr<model::Model> m;
  model::Weights grads;
  float* grad_block = nullptr;
  int64_t elements = 0;

  reference::Tensors<double> values() { return tensors(m->weights); }
  reference::Tensors<double> gradients() { return tensors(grads); }
  std::vector<float> gradient_bits() const { return {grad_block, grad_block + elements}; }

  // Loss and gradients of one batch, from zero.
  model::LossResult step(const Exec& exec, const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
                         const layers::TokenContext& ctx, const model::LossOptions& loss,
                         model::Recompute policy = model::Recompute::none) {
    std::memset(grad_block, 0, static_cast<size_t>(elements) * sizeof(float));
    kept.reset();
    scratch.reset();
    tape = model::reserve_tape(kept, *m, static_cast<int64_t>(ids.size()), model::Tape::Keep::for_backward, policy);
    model::forward({exec, *m, ctx, scratch}, ids, tape);
    return model::backward({exec, *m, ctx, scratch}, ids, labels, tape, loss, grads);
  }
  model::Tape tape;

 private:
  static reference::Tensors<double> tensors(const model::Weights& w) {
    reference::Tensors<double> t;
    w.for_each([&](const std::string& name, CMat values, layers::Role) {
      t[name] = std::vector<double>(values.f32(), values.f32() + values.size());
    });
    return t;
  }
};

}  // namespace birkhoff::test
