// DeepseekV4ForCausalLM: V4-Flash, V4-Pro (models.md G). Files come in two spellings: the released one (names without
// "model.", config keys compress_ratios, num_hash_layers, rope_scaling) and the one that transformers saves (G.9, N.15;
// layer_types, mlp_layer_types, compress_rates, nested rope_parameters). Both are read, the released one is written.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model::types {
namespace {

using nlohmann::json;

std::vector<std::string> deepseek_v4_settings() {
  return common_settings({"num_key_value_heads",
                          "head_dim",
                          "qk_rope_head_dim",
                          "q_lora_rank",
                          "o_groups",
                          "o_lora_rank",
                          "moe_intermediate_size",
                          "n_routed_experts",
                          "n_shared_experts",
                          "num_experts_per_tok",
                          "num_hash_layers",
                          "scoring_func",
                          "topk_method",
                          "norm_topk_prob",
                          "routed_scaling_factor",
                          "swiglu_limit",
                          "sliding_window",
                          "compress_ratios",
                          "compress_rope_theta",
                          "index_n_heads",
                          "index_head_dim",
                          "index_topk",
                          "hc_mult",
                          "hc_sinkhorn_iters",
                          "hc_eps",
                          "num_nextn_predict_layers"});
}

void deepseek_v4_defaults(ModelConfig& c) {
  c.num_key_value_heads = 1;
  c.scoring_func = ops::Scoring::sqrtsoftplus;
  c.topk_method = TopkMethod::noaux_tc;
  c.norm_topk_prob = true;
  c.residual = ops::ResidualKind::mhc;
  c.hc_convention = ops::HcConvention::v4;
  c.hc_head = HcHead::learned;
}

[[noreturn]] void bad_v4_config(const std::string& what, const std::string& hint) { throw Error("config", what, hint); }

// transformers: a kind of attention per layer and a rate per kind.
json ratios(const json& layer_types, const json& rates) {
  const auto rate = [&](const char* kind, int64_t otherwise) {
    int64_t r = otherwise;
    if (rates.is_object() && rates.contains(kind)) assign_field(std::string("compress_rates.") + kind, rates[kind], r);
    return r;
  };
  const int64_t sparse = rate("compressed_sparse_attention", 4), heavy = rate("heavily_compressed_attention", 128);
  if (sparse != 4 || heavy == 4)
    bad_v4_config("compress_rates: compressed_sparse_attention " + std::to_string(sparse) +
                      ", heavily_compressed_attention " + std::to_string(heavy),
                  "the released layout tells the kinds apart by the ratio: 4 is compressed_sparse_attention");
  json list = json::array();
  for (const auto& entry : layer_types) {
    std::string kind;
    assign_field("layer_types", entry, kind);
    require_one_of("layer_types", kind,
                   {"sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"});
    list.push_back(kind == "sliding_attention" ? 0 : kind == "compressed_sparse_attention" ? sparse : heavy);
  }
  return list;
}

// Hash-routed layers come first.
int64_t hash_layers(const json& mlp_layer_types) {
  int64_t hashed = 0, index = 0;
  for (const auto& entry : mlp_layer_types) {
    std::string kind;
    assign_field("mlp_layer_types", entry, kind);
    require_one_of("mlp_layer_types", kind, {"hash_moe", "moe"});
    if (kind == "hash_moe" && index++ != hashed++)
      bad_v4_config("mlp_layer_types: hash_moe after moe", "hash-routed layers are the first ones");
    if (kind == "moe") ++index;
  }
  return hashed;
}

json rotary(json& j) {
  json parameters = j["rope_parameters"];
  j.erase("rope_parameters");
  if (!parameters.is_object() || !parameters.value("main", json()).is_object() ||
      !parameters.value("compress", json()).is_object())
    bad_v4_config("rope_parameters: expected an object with main and compress, got " + parameters.dump(),
                  "or rope_theta, compress_rope_theta and rope_scaling");
  json compress = parameters["compress"];
  if (const json type = parameters["main"].value("rope_type", json("default")); type != "default" && !type.is_null())
    bad_v4_config("rope_parameters.main: rope_type " + type.dump() + " is not supported, only \"default\"",
                  "V4 scales the positions of its compressed entries alone");
  if (parameters["main"].contains("rope_theta")) j["rope_theta"] = parameters["main"]["rope_theta"];
  if (compress.contains("rope_theta")) j["compress_rope_theta"] = compress["rope_theta"];
  for (const char* key : {"rope_theta", "partial_rotary_factor"}) compress.erase(key);
  return compress;
}

// V4 has no magnitude correction (models.md G.3); a factor of 1 says so.
void drop_attention_factor(json& scaling) {
  if (!scaling.is_object() || !scaling.contains("attention_factor")) return;
  const json factor = scaling["attention_factor"];
  if (!factor.is_null() && factor != 1.0)
    bad_v4_config("rope_scaling: attention_factor " + factor.dump() + " is not supported, only 1",
                  "V4 does not scale the rotation");
  scaling.erase("attention_factor");
}

json deepseek_v4_to_settings(json j) {
  require_plain_layers(j);
  if (j.contains("norm_topk_prob")) j["norm_topk_prob"] = true;  // its weights are always normalised (models.md G.7)
  if (j.contains("layer_types") && j["layer_types"].is_array()) {
    const json list = ratios(j["layer_types"], j.value("compress_rates", json()));
    if (!j.contains("compress_ratios")) j["compress_ratios"] = list;
    for (const char* key : {"layer_types", "compress_rates"}) j.erase(key);
  }
  if (j.contains("mlp_layer_types") && j["mlp_layer_types"].is_array()) {
    const int64_t hashed = hash_layers(j["mlp_layer_types"]);
    if (!j.contains("num_hash_layers")) j["num_hash_layers"] = hashed;
    j.erase("mlp_layer_types");
  }
  if (j.contains("rope_parameters") && j["rope_parameters"].is_object()) j["rope_scaling"] = rotary(j);
  if (j.contains("rope_scaling")) drop_attention_factor(j["rope_scaling"]);
  if (!j.contains("qk_rope_head_dim") && j.contains("partial_rotary_factor")) {
    double share = 0, dim = 0;
    assign_field("partial_rotary_factor", j["partial_rotary_factor"], share);
    assign_field("head_dim", j.value("head_dim", json()), dim);
    j["qk_rope_head_dim"] = static_cast<int64_t>(share * dim + 0.5);
  }
  return j;
}

json deepseek_v4_from_settings(json j) {
  if (j.contains("rope_scaling") && j["rope_scaling"].is_object())
    for (const char* key : {"mscale", "mscale_all_dim"})
      j["rope_scaling"].erase(key);  // V4 has no magnitude correction
  return j;
}

void deepseek_v4_validate(const ModelConfig& c) {
  require_absent(c, c.uses_compressed_attention(), "compress_ratios", "[]");
  require_absent(c, c.n_routed_experts > 0, "n_routed_experts", std::to_string(c.n_routed_experts));
  require_absent(c, c.first_k_dense_replace == 0, "first_k_dense_replace", std::to_string(c.first_k_dense_replace));
  require_absent(c, c.moe_layer_freq == 1, "moe_layer_freq", std::to_string(c.moe_layer_freq));
  require_absent(c, c.n_group == 1, "n_group", std::to_string(c.n_group));
  require_absent(c, c.scoring_func == ops::Scoring::sqrtsoftplus, "scoring_func", name_of(c.scoring_func));
  require_absent(c, c.topk_method == TopkMethod::noaux_tc, "topk_method", name_of(c.topk_method));
  require_absent(c, c.hc_convention == ops::HcConvention::v4, "hc_convention", name_of(c.hc_convention));
  require_absent(c, c.hc_res_form == ops::ResForm::sinkhorn, "hc_res_form", name_of(c.hc_res_form));
  require_absent(c, c.hc_head == HcHead::learned, "hc_head", name_of(c.hc_head));
  require_absent(c, !c.tie_word_embeddings, "tie_word_embeddings", "true");
}

// A name may be looked up as a whole or by its beginning.
struct Rename {
  const char *ours, *hub;
};
constexpr Rename kBlock[] = {{"input_layernorm.", "attn_norm."},
                             {"post_attention_layernorm.", "ffn_norm."},
                             {"self_attn.compressor.indexer.q_b_proj.", "attn.indexer.wq_b."},
                             {"self_attn.compressor.indexer.weights_proj.", "attn.indexer.weights_proj."},
                             {"self_attn.compressor.indexer.compressor.", "attn.indexer.compressor."},
                             {"self_attn.compressor.", "attn.compressor."},
                             {"self_attn.q_a_proj.", "attn.wq_a."},
                             {"self_attn.q_a_norm.", "attn.q_norm."},
                             {"self_attn.q_b_proj.", "attn.wq_b."},
                             {"self_attn.kv_proj.", "attn.wkv."},
                             {"self_attn.kv_norm.", "attn.kv_norm."},
                             {"self_attn.sinks", "attn.attn_sink"},
                             {"self_attn.o_a_proj.", "attn.wo_a."},
                             {"self_attn.o_b_proj.", "attn.wo_b."},
                             {"mlp.gate.e_score_correction_bias", "ffn.gate.bias"},
                             {"mlp.", "ffn."}};
constexpr Rename kLeaf[] = {
    {"gate_proj.weight", "w1.weight"}, {"down_proj.weight", "w2.weight"}, {"up_proj.weight", "w3.weight"}};
constexpr Rename kCompressorLeaf[] = {{"compressor.kv_proj.weight", "compressor.wkv.weight"},
                                      {"compressor.gate_proj.weight", "compressor.wgate.weight"},
                                      {"compressor.position_bias", "compressor.ape"},
                                      {"compressor.kv_norm.weight", "compressor.norm.weight"}};
constexpr Rename kWhole[] = {{"model.embed_tokens.weight", "embed.weight"}, {"lm_head.weight", "head.weight"},
                             {"model.norm.weight", "norm.weight"},          {"model.hc_head_fn", "hc_head_fn"},
                             {"model.hc_head_scale", "hc_head_scale"},      {"model.hc_head_base", "hc_head_base"}};
constexpr Rename kSavedWhole[] = {
    {"embed.weight", "model.embed_tokens.weight"}, {"norm.weight", "model.norm.weight"},
    {"hc_head_fn", "model.hc_head.hc_fn"},         {"hc_head_scale", "model.hc_head.hc_scale"},
    {"hc_head_base", "model.hc_head.hc_base"},     {"head.weight", "head.weight"}};

bool replace_prefix(std::string& name, const Rename& r) {
  const std::string_view ours = r.ours;
  if (name.compare(0, ours.size(), ours) != 0) return false;
  name.replace(0, ours.size(), r.hub);
  return true;
}
bool replace_suffix(std::string& name, const Rename& r) {
  const std::string_view ours = r.ours;
  if (name.size() < ours.size() || name.compare(name.size() - ours.size(), ours.size(), ours) != 0) return false;
  name.replace(name.size() - ours.size(), ours.size(), r.hub);
  return true;
}

std::string hub_block_name(std::string rest) {
  for (const Rename& r : kBlock)
    if (replace_prefix(rest, r)) break;
  if (rest.rfind("ffn.", 0) == 0)
    for (const Rename& r : kLeaf)
      if (replace_suffix(rest, r)) break;
  if (rest.rfind("attn.", 0) == 0)
    for (const Rename& r : kCompressorLeaf)
      if (replace_suffix(rest, r)) break;
  return rest;
}

std::string hub_name(const ModelConfig& c, const std::string& name) {
  std::string rest;
  const int64_t block = block_of(name, &rest);
  if (block >= c.num_hidden_layers)
    return "mtp." + std::to_string(block - c.num_hidden_layers) + "." + hub_block_name(rest);
  if (block >= 0) return "layers." + std::to_string(block) + "." + hub_block_name(rest);
  for (const Rename& r : kWhole)
    if (name == r.ours) return r.hub;
  return name;
}

// As save_pretrained writes it.
std::string saved_name(const std::string& hub) {
  for (const Rename& r : kSavedWhole)
    if (hub == r.ours) return r.hub;
  std::string name = "model." + hub;
  replace_suffix(name, {".attn.kv_norm.weight", ".attn.norm.weight"});
  return name;
}

std::vector<std::string> deepseek_v4_file_names(const ModelConfig& c, const std::string& name) {
  const std::string hub = hub_name(c, name);
  return {hub, saved_name(hub)};
}

// Prediction modules may carry copies of embedding and head, and their tensors are passed over when the configuration
// has none.
bool deepseek_v4_ignores(const ModelConfig& c, const std::string& file_name) {
  std::string name = file_name;
  replace_prefix(name, {"model.", ""});
  if (name.rfind("mtp.", 0) != 0) return false;
  if (name.find("emb") != std::string::npos) return true;
  if (name.size() >= 11 && name.compare(name.size() - 11, 11, "head.weight") == 0) return true;
  return std::atoll(name.c_str() + 4) >= c.num_nextn_predict_layers;
}

// transformers knows the released kinds alone (KeyError: 16 for another).
std::string deepseek_v4_note(const ModelConfig& c) {
  for (const int64_t r : c.compress_ratios)
    if (r != 0 && r != 4 && r != 128)
      return "compress_ratios: transformers opens deepseek_v4 with ratios 0, 4 and 128 alone, this model has " +
             std::to_string(r);
  return "";
}

}  // namespace

const ModelType deepseek_v4{.name = "deepseek_v4",
                            .architecture = "DeepseekV4ForCausalLM",
                            .settings = deepseek_v4_settings(),
                            .defaults = deepseek_v4_defaults,
                            .to_settings = deepseek_v4_to_settings,
                            .from_settings = deepseek_v4_from_settings,
                            .validate = deepseek_v4_validate,
                            .file_names = deepseek_v4_file_names,
                            .ignores = deepseek_v4_ignores,
                            .note_when_written = deepseek_v4_note};

}  // namespace birkhoff::model::types
