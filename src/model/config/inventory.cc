#include "model/config/inventory.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"
#include "model/weights.h"

namespace birkhoff::model {
namespace {

using layers::Role;

bool contains(const std::string& s, const char* part) { return s.find(part) != std::string::npos; }

const char* group_of(const std::string& name, Role role) {
  switch (role) {
    case Role::embedding:
      return "embedding";
    case Role::head:
      return "head";
    case Role::router:
    case Role::router_bias:
      return "router";
    case Role::hc_fn:
    case Role::hc_scale:
    case Role::hc_base:
      return "hyper_connections";
    default:
      break;
  }
  if (contains(name, ".self_attn.")) return "attention";
  if (contains(name, ".hc_")) return "hyper_connections";
  if (role == Role::norm) return "norms";
  if (contains(name, ".shared_experts.")) return "shared_experts";
  if (contains(name, ".experts.")) return "routed_experts";
  return "dense_ffn";
}

// What decides the tensors of a block.
struct BlockKind {
  bool experts = false, hashed = false;
  int64_t ratio = 0;
  auto operator<=>(const BlockKind&) const = default;
};

std::map<BlockKind, int64_t> kinds_of(const ModelConfig& c, int64_t begin, int64_t end) {
  std::map<BlockKind, int64_t> kinds;
  for (int64_t i = begin; i < end; ++i)
    ++kinds[{c.is_moe_layer(i), i < std::min(c.num_hash_layers, c.num_hidden_layers), c.compress_ratio(i)}];
  return kinds;
}

ModelConfig with_one_layer(ModelConfig c, const BlockKind& kind) {
  c.num_hidden_layers = 1;
  c.num_nextn_predict_layers = 0;
  c.first_k_dense_replace = kind.experts ? 0 : 1;
  c.moe_layer_freq = 1;
  c.num_hash_layers = kind.hashed ? 1 : 0;
  if (c.uses_compressed_attention()) c.compress_ratios = {kind.ratio};
  return c;
}

// Behind one dense layer.
ModelConfig with_one_module(ModelConfig c, const BlockKind& kind) {
  c = with_one_layer(std::move(c), {});
  c.num_nextn_predict_layers = 1;
  c.first_k_dense_replace = kind.experts ? 1 : 2;
  if (c.uses_compressed_attention()) c.compress_ratios = {0, kind.ratio};
  return c;
}

}  // namespace

Inventory take_inventory(const ModelConfig& c) {
  Inventory v;
  v.model_type = c.model_type;
  int64_t products = 0;  // weights that multiply every token
  // Once for every kind of layer: a configuration may ask for 10,000 layers of 1,024 experts, whose names alone take
  // gigabytes.
  bool first = true;
  for (const auto& [kind, layers] : kinds_of(c, 0, c.num_hidden_layers)) {
    Weights w(with_one_layer(c, kind));
    w.for_each([&, layers = layers](const std::string& name, Mat& m, Role role) {
      if (role == Role::expert_table) return;  // whole numbers, not parameters
      const bool of_layer = types::block_of(name) >= 0;
      if (!of_layer && !first) return;
      const int64_t elements = m.size() * (of_layer ? layers : 1);
      const std::string group = group_of(name, role);
      v.groups[group] += elements;
      v.total += elements;
      if (role == Role::matrix || role == Role::output_projection || role == Role::head || role == Role::router)
        if (group != "routed_experts") products += elements;
    });
    first = false;
  }
  for (const auto& [kind, modules] : kinds_of(c, c.num_hidden_layers, c.blocks())) {  // counted apart (models.md K.1)
    Weights w(with_one_module(c, kind));
    w.for_each([&, modules = modules](const std::string& name, Mat& m, Role role) {
      if (role != Role::expert_table && types::block_of(name) == 1) v.mtp += m.size() * modules;
    });
  }
  if (c.tie_word_embeddings) products += c.vocab_size * c.hidden_size;
  const int64_t experts = v.groups["routed_experts"];
  const int64_t active_experts = c.n_routed_experts ? experts / c.n_routed_experts * c.num_experts_per_tok : 0;
  v.active_with_embedding = v.total - experts + active_experts;
  v.active = v.active_with_embedding - (c.tie_word_embeddings ? 0 : c.vocab_size * c.hidden_size);
  double per_token = 0;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const layers::CacheSize size = std::visit([](const auto& s) { return s.cache_size(); }, c.block_spec(i).attn);
    per_token += size.per_token;
    v.kv_constant_bytes += 2 * size.constant;
  }
  v.kv_elements_per_token = std::llround(per_token);
  v.kv_bytes_per_token = 2 * v.kv_elements_per_token;
  v.train_bytes = v.total * 20;  // fp32 master, gradient, two moments; two packed bf16 copies
  v.infer_bytes = v.total * 2;
  v.flops_infer = 2.0 * static_cast<double>(products + active_experts);
  v.flops_train = 3 * v.flops_infer;
  return v;
}

nlohmann::json to_json(const Inventory& v) {
  return {{"model_type", v.model_type},
          {"parameters",
           {{"total", v.total},
            {"active", v.active},
            {"active_with_embedding", v.active_with_embedding},
            {"mtp", v.mtp},
            {"groups", v.groups}}},
          {"kv",
           {{"elements_per_token", v.kv_elements_per_token},
            {"bytes_per_token", v.kv_bytes_per_token},
            {"constant_bytes", v.kv_constant_bytes}}},
          {"memory", {{"train_bytes", v.train_bytes}, {"infer_bytes", v.infer_bytes}}},
          {"flops_per_token", {{"train", v.flops_train}, {"infer", v.flops_infer}}}};
}

double model_flops(const ModelConfig& c, int64_t rows, int64_t seq_len) {
  int64_t products = 0;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    products += std::visit([](const auto& s) { return s.score_products(); }, c.block_spec(i).attn);
  const double scores = static_cast<double>(products) * static_cast<double>(seq_len + 1) / 2;
  return (take_inventory(c).flops_train + 6.0 * scores) * static_cast<double>(rows * seq_len);
}

}  // namespace birkhoff::model
