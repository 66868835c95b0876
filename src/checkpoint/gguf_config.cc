#include "checkpoint/gguf_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_rope.h"

namespace birkhoff::checkpoint {
namespace {

using nlohmann::json;

constexpr int64_t kSoftmaxGate = 1, kSigmoidGate = 2, kSqrtSoftplusGate = 4;

json common_config(const GgufKeys& k, const char* model_type) {
  const io::GgufTensor* embedding = k.model.find("token_embd.weight");
  if (!embedding) k.file.fail("the tensor token_embd.weight is missing", "is this the file of a whole model?");
  json j = {{"model_type", model_type},
            {"vocab_size", embedding->dims[1]},
            {"hidden_size", k.size("embedding_length")},
            {"num_hidden_layers", k.size("block_count")},
            {"num_attention_heads", k.size("attention.head_count")},
            {"max_position_embeddings", k.size("context_length")},
            {"rope_theta", k.number("rope.freq_base").value_or(10000)},
            {"tie_word_embeddings", k.model.find("output.weight") == nullptr},
            {"torch_dtype", embedding->type->id == 0 ? "float32" : "bfloat16"}};
  if (j["num_attention_heads"] == 0) k.fail("attention.head_count", " is 0");
  j["rms_norm_eps"] = k.required_number("attention.layer_norm_rms_epsilon");
  if (const int64_t window = k.size("attention.sliding_window", 0)) j["sliding_window"] = window;
  return j;
}

// Keys and values of heads that rotate as a whole.
void add_heads(const GgufKeys& k, json& j) {
  j["num_key_value_heads"] = k.size("attention.head_count_kv", j["num_attention_heads"]);
  const auto key = k.find_size("attention.key_length"), value = k.find_size("attention.value_length");
  const int64_t heads = j["num_attention_heads"], width = j["hidden_size"];
  const int64_t head_dim = key ? *key : width / heads;
  if (key || j["model_type"] == "qwen3") j["head_dim"] = head_dim;  // whose configurations mean 128 without
  if (value.value_or(head_dim) != head_dim)
    k.fail("attention.value_length",
           " is " + std::to_string(*value) + ", keys have " + std::to_string(head_dim) + ": both must be equal");
  if (const int64_t rotated = k.size("rope.dimension_count", head_dim); rotated != head_dim)
    k.fail("rope.dimension_count", " is " + std::to_string(rotated) + ", heads have " + std::to_string(head_dim) +
                                       ": a part that does not rotate is not supported");
  j["rope_scaling"] = gguf_rope_scaling(k, head_dim, j["rope_theta"]);
}

void add_deepseek_experts(const GgufKeys& k, json& j) {
  j["intermediate_size"] = k.size("feed_forward_length");
  j["n_routed_experts"] = k.size("expert_count", 0);
  if (j["n_routed_experts"] == 0) return;
  j["num_experts_per_tok"] = k.size("expert_used_count");
  j["moe_intermediate_size"] = k.size("expert_feed_forward_length");
  j["n_shared_experts"] = k.size("expert_shared_count", 0);
  j["first_k_dense_replace"] = k.size("leading_dense_block_count", 0);
  j["moe_layer_freq"] = 1;
  j["norm_topk_prob"] = k.boolean("expert_weights_norm").value_or(false);
}

double expert_scale(const GgufKeys& k) {  // 0, the default of the format's first reader, means 1
  const double s = k.number("expert_weights_scale").value_or(1);
  return s == 0 ? 1 : s;
}

json llama_config(const GgufKeys& k, GgufDescription& d) {
  d.interleaved = true;
  const int64_t experts = k.size("expert_count", 0);
  json j = common_config(k, experts ? "mixtral" : "llama");
  add_heads(k, j);
  j["intermediate_size"] = k.size("feed_forward_length");
  if (!experts) return j;
  j["intermediate_size"] = k.size("expert_feed_forward_length", j["intermediate_size"]);
  j["num_local_experts"] = experts;
  j["num_experts_per_tok"] = k.size("expert_used_count");
  return j;
}

json qwen_config(const GgufKeys& k, const char* model_type) {
  json j = common_config(k, model_type);
  add_heads(k, j);
  j["intermediate_size"] = k.size("feed_forward_length");
  return j;
}
json qwen2_config(const GgufKeys& k, GgufDescription&) { return qwen_config(k, "qwen2"); }
json qwen3_config(const GgufKeys& k, GgufDescription&) { return qwen_config(k, "qwen3"); }

json deepseek_config(const GgufKeys& k, GgufDescription& d) {
  d.interleaved = true;
  json j = common_config(k, "deepseek");
  add_heads(k, j);
  add_deepseek_experts(k, j);
  j["scoring_func"] = "softmax";
  if (const double s = expert_scale(k); s != 1)
    k.fail("expert_weights_scale", " is " + std::to_string(s) + ", only 1 is supported");
  return j;
}

// Latent attention. Files with attn_k_b and attn_v_b give the widths of the latent form beside those of the expanded
// one, and one key head.
void add_latent_attention(const GgufKeys& k, json& j) {
  const int64_t rope = k.size("rope.dimension_count");
  const auto key = k.find_size("attention.key_length_mla"), value = k.find_size("attention.value_length_mla");
  const int64_t qk = key ? *key : k.size("attention.key_length");
  if (qk <= rope)
    k.fail(key ? "attention.key_length_mla" : "attention.key_length",
           " is " + std::to_string(qk) + ", of which rope.dimension_count takes " + std::to_string(rope));
  j["num_key_value_heads"] = j["num_attention_heads"];
  j["qk_rope_head_dim"] = rope;
  j["qk_nope_head_dim"] = qk - rope;
  j["v_head_dim"] = value ? *value : k.size("attention.value_length");
  j["kv_lora_rank"] = k.size("attention.kv_lora_rank");
  const int64_t q_lora = k.size("attention.q_lora_rank", 0);
  j["q_lora_rank"] = q_lora ? json(q_lora) : json();
  j["rope_scaling"] = gguf_latent_rope_scaling(k);
}

void add_prediction_modules(const GgufKeys& k, json& j) {
  const int64_t modules = k.size("nextn_predict_layers", 0), blocks = j["num_hidden_layers"];
  if (modules >= blocks && modules > 0)
    k.fail("nextn_predict_layers", " is " + std::to_string(modules) + " of " + std::to_string(blocks) + " blocks");
  j["num_hidden_layers"] = blocks - modules;
  j["num_nextn_predict_layers"] = modules;
}

bool has_sigmoid_gate(const GgufKeys& k) {
  if (const auto gate = k.find_size("expert_gating_func")) {
    if (*gate != kSoftmaxGate && *gate != kSigmoidGate)
      k.fail("expert_gating_func",
             " is " + std::to_string(*gate) + ", 1 (softmax) and 2 (sigmoid) are supported for this architecture");
    return *gate == kSigmoidGate;
  }
  return std::any_of(k.model.tensors().begin(), k.model.tensors().end(),
                     [](const io::GgufTensor* t) { return t->name.find(".exp_probs_b.") != std::string_view::npos; });
}

void add_indexer(const GgufKeys& k, json& j) {
  j["index_n_heads"] = k.size("attention.indexer.head_count");
  j["index_head_dim"] = k.size("attention.indexer.key_length");
  j["index_topk"] = k.size("attention.indexer.top_k");
}

json latent_config(const GgufKeys& k, GgufDescription& d, bool v32) {
  const bool v3 = has_sigmoid_gate(k);
  json j = common_config(k, v32 ? "deepseek_v32" : v3 ? "deepseek_v3" : "deepseek_v2");
  add_latent_attention(k, j);
  add_deepseek_experts(k, j);
  const int64_t groups = k.size("expert_group_count", 1);
  j["n_group"] = std::max<int64_t>(1, groups);
  j["topk_group"] = std::max<int64_t>(1, k.size("expert_group_used_count", 1));
  j["routed_scaling_factor"] = expert_scale(k);
  j["scoring_func"] = v3 ? "sigmoid" : "softmax";
  j["topk_method"] = v3 ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy";
  if (v3 && j["n_routed_experts"] == 256 && !k.find_size("expert_group_count"))
    d.notes.push_back(k.file.path() + ": " + k.full("expert_group_count") +
                      " is missing: experts are chosen without groups; the released V3 has n_group=8 and topk_group=4");
  if (v3) add_prediction_modules(k, j);
  if (v32) add_indexer(k, j);
  return j;
}
json deepseek2_config(const GgufKeys& k, GgufDescription& d) {
  return latent_config(k, d, k.find_size("attention.indexer.top_k").has_value());
}
json deepseek32_config(const GgufKeys& k, GgufDescription& d) { return latent_config(k, d, true); }

// One limit for the routed and the shared experts of all layers; 0 is none.
double swiglu_limit(const GgufKeys& k) {
  const auto one = [&](const char* name) -> std::optional<double> {
    const auto list = k.numbers(name);
    if (!list || list->empty()) return std::nullopt;
    const auto other = std::find_if(list->begin(), list->end(), [&](double v) { return v != list->front(); });
    if (other != list->end())
      k.fail(name, " is " + std::to_string(list->front()) + " and " + std::to_string(*other) +
                       ": layers that differ are not supported");
    return list->front();
  };
  const std::optional<double> routed = one("swiglu_clamp_exp");
  if (!routed) k.fail("swiglu_clamp_exp", " is missing");
  if (const double shared = one("swiglu_clamp_shexp").value_or(*routed); shared != *routed)
    k.fail("swiglu_clamp_shexp",
           " is " + std::to_string(shared) + ", swiglu_clamp_exp " + std::to_string(*routed) + ": both must be equal");
  return *routed;
}

// One head that is key and value, of which `ratio` tokens make an entry.
void add_compressed_attention(const GgufKeys& k, json& j) {
  const int64_t head_dim = k.size("attention.key_length");
  k.require("attention.value_length", head_dim, k.size("attention.value_length", head_dim));
  k.require("attention.head_count_kv", 1, k.size("attention.head_count_kv", 1));
  j["num_key_value_heads"] = 1;
  j["head_dim"] = head_dim;
  j["qk_rope_head_dim"] = k.size("rope.dimension_count");
  j["q_lora_rank"] = k.size("attention.q_lora_rank");
  j["o_groups"] = k.size("attention.output_group_count");
  j["o_lora_rank"] = k.size("attention.output_lora_rank");
  j["sliding_window"] = k.size("attention.sliding_window");
  const auto ratios = k.file.naturals(k.full("attention.compress_ratios"));
  if (!ratios) k.fail("attention.compress_ratios", " is missing");
  j["compress_ratios"] = *ratios;
  j["compress_rope_theta"] = k.required_number("attention.compress_rope_freq_base");
  j["rope_scaling"] = gguf_yarn_scaling(k);
  add_indexer(k, j);
}

json deepseek4_config(const GgufKeys& k, GgufDescription&) {
  json j = common_config(k, "deepseek_v4");
  j["tie_word_embeddings"] = false;
  add_compressed_attention(k, j);
  j["n_routed_experts"] = k.size("expert_count");
  j["num_experts_per_tok"] = k.size("expert_used_count");
  j["moe_intermediate_size"] = k.size("expert_feed_forward_length");
  j["n_shared_experts"] = k.size("expert_shared_count");
  j["num_hash_layers"] = k.size("hash_layer_count");
  k.require("expert_gating_func", kSqrtSoftplusGate, k.size("expert_gating_func"));
  if (!k.boolean("expert_weights_norm").value_or(false))
    k.fail("expert_weights_norm", " is not true, as it is in all models of this architecture");
  j["scoring_func"] = "sqrtsoftplus";
  j["topk_method"] = "noaux_tc";
  j["norm_topk_prob"] = true;
  j["routed_scaling_factor"] = expert_scale(k);
  j["swiglu_limit"] = swiglu_limit(k);
  j["hc_mult"] = k.size("hyper_connection.count");
  j["hc_sinkhorn_iters"] = k.size("hyper_connection.sinkhorn_iterations");
  j["hc_eps"] = k.required_number("hyper_connection.epsilon");
  add_prediction_modules(k, j);
  return j;
}

struct Architecture {
  const char* name;
  json (*config)(const GgufKeys&, GgufDescription&);
};
// Another one is a function and a line here; names of tensors that are its own go to gguf_names.cc.
constexpr Architecture kArchitectures[] = {{"llama", llama_config},         {"qwen2", qwen2_config},
                                           {"qwen3", qwen3_config},         {"deepseek", deepseek_config},
                                           {"deepseek2", deepseek2_config}, {"deepseek32", deepseek32_config},
                                           {"deepseek4", deepseek4_config}};

// Arrays of the vocabulary speak of the same tokens, which have rows in the embedding.
void check_vocabulary_arrays(const io::GgufFile& f, int64_t rows) {
  const io::GgufValue* tokens = f.value("tokenizer.ggml.tokens");
  if (!tokens) return;
  for (const char* key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"})
    if (const io::GgufValue* v = f.value(key); v && v->count != tokens->count)
      f.fail(std::string(key) + " has " + std::to_string(v->count) + " entries, tokenizer.ggml.tokens " +
             std::to_string(tokens->count));
  if (tokens->count > static_cast<uint64_t>(rows))
    f.fail("tokenizer.ggml.tokens has " + std::to_string(tokens->count) + " entries, token_embd.weight " +
           std::to_string(rows) + " rows");
}

// Ids that the engine and the text layer look for under config.json's names.
void add_special_ids(const io::GgufFile& f, json& j) {
  if (const auto bos = f.natural("tokenizer.ggml.bos_token_id")) j["bos_token_id"] = *bos;
  json ends = json::array();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = f.natural(key); id && std::find(ends.begin(), ends.end(), json(*id)) == ends.end())
      ends.push_back(*id);
  if (!ends.empty()) j["eos_token_id"] = ends;
}

}  // namespace

json gguf_config(const io::GgufModel& m, GgufDescription& description) {
  const io::GgufFile& f = m.metadata();
  const auto name = f.text("general.architecture");
  if (!name) f.fail("general.architecture is missing", "is this the file of a model?");
  std::vector<std::string> known;
  for (const Architecture& a : kArchitectures) {
    known.push_back(a.name);
    if (*name != a.name) continue;
    json j = a.config(GgufKeys(m, a.name), description);
    check_vocabulary_arrays(f, j["vocab_size"]);
    add_special_ids(f, j);
    return j;
  }
  std::string list;
  for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
  f.fail("general.architecture is \"" + std::string(name->substr(0, 60)) + "\"", "known: " + list);
}

}  // namespace birkhoff::checkpoint
