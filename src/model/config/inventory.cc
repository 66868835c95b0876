#include "model/config/inventory.h"

#include <algorithm>
#include <cmath>
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

// Of blocks [first, end).
struct TokenCaches {
  double elements = 0, int8_bytes = 0;
  int64_t constant = 0;
  TokenCaches(const ModelConfig& c, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      const layers::CacheSize size = std::visit([](const auto& s) { return s.cache_size(); }, c.block_spec(i).attn);
      elements += size.per_token;
      int8_bytes += size.scales ? size.per_token + 4 * static_cast<double>(size.scales) : 2 * size.per_token;
      constant += size.constant;
    }
  }
};

void count_caches(const ModelConfig& c, Inventory& v) {
  const TokenCaches main(c, 0, c.num_hidden_layers), modules(c, c.num_hidden_layers, c.blocks());
  v.kv_elements_per_token = std::llround(main.elements);
  v.kv_bytes_per_token = 2 * v.kv_elements_per_token;
  v.kv_int8_bytes_per_token = std::llround(main.int8_bytes);
  v.kv_constant_bytes = 2 * main.constant;
  ModelConfig as_trained = c;
  as_trained.latent_attention = LatentAttention::expanded;
  const TokenCaches expanded(as_trained, 0, c.num_hidden_layers);
  v.kv_expanded_bytes_per_token = 2 * std::llround(expanded.elements);
  v.kv_expanded_int8_bytes_per_token = std::llround(expanded.int8_bytes);
  if (main.constant) return;
  const int64_t sources = c.num_nextn_predict_layers * c.streams();  // rows that modules read, of the state's width
  v.mtp_kv_elements_per_token = std::llround(modules.elements) + sources * c.hidden_size;
  v.mtp_kv_int8_bytes_per_token = std::llround(modules.int8_bytes) + sources * (c.hidden_size + 4);
}

}  // namespace

Inventory take_inventory(const ModelConfig& c) {
  Inventory v;
  v.model_type = c.model_type;
  ModelConfig one = c;  // the experts of a layer are alike: one of them is visited, in its router too
  one.n_routed_experts = std::min<int64_t>(c.n_routed_experts, 1);
  const Weights w(one);
  int64_t products = 0;  // weights that multiply every token
  w.for_each([&](const std::string& name, CMat m, Role role) {
    if (role == Role::expert_table) return;  // whole numbers, not parameters
    const std::string group = group_of(name, role);
    const int64_t size = m.size() * (group == "routed_experts" || group == "router" ? c.n_routed_experts : 1);
    if (types::block_of(name) >= c.num_hidden_layers) {  // multi-token prediction: counted apart (models.md K.1)
      v.mtp += size;
      return;
    }
    v.groups[group] += size;
    v.total += size;
    if (role == Role::matrix || role == Role::output_projection || role == Role::head || role == Role::router)
      if (group != "routed_experts") products += size;
  });
  if (c.tie_word_embeddings) products += c.vocab_size * c.hidden_size;
  const int64_t experts = v.groups["routed_experts"];
  const int64_t active_experts = c.n_routed_experts ? experts / c.n_routed_experts * c.num_experts_per_tok : 0;
  v.active_with_embedding = v.total - experts + active_experts;
  v.active = v.active_with_embedding - (c.tie_word_embeddings ? 0 : c.vocab_size * c.hidden_size);
  count_caches(c, v);
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
            {"int8_bytes_per_token", v.kv_int8_bytes_per_token},
            {"expanded_bytes_per_token", v.kv_expanded_bytes_per_token},
            {"expanded_int8_bytes_per_token", v.kv_expanded_int8_bytes_per_token},
            {"mtp_elements_per_token", v.mtp_kv_elements_per_token},
            {"mtp_int8_bytes_per_token", v.mtp_kv_int8_bytes_per_token},
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
