#include "model/config/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/model_type.h"

namespace birkhoff::model {
namespace {

using nlohmann::json;

// The one table: f(key, field) for every setting of a model. rope_scaling is an object and handled apart.
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

[[noreturn]] void fail(const std::string& what, const std::string& hint = "") { throw Error("config", what, hint); }

double number(const json& o, const char* key, double otherwise) {
  const auto it = o.find(key);
  if (it == o.end() || it->is_null()) return otherwise;
  double v = 0;
  assign_field(std::string("rope_scaling.") + key, *it, v);
  return v;
}

// What transformers' YaRN may say beyond the papers'. A magnitude of its own is refused unless it is the one that
// follows from the rest.
void require_understood(const json& j, const ops::RopeScaling& s) {
  if (s.kind != ops::RopeScaling::Kind::yarn) return;
  const double follows = ops::yarn_mscale(s.factor, s.mscale) / ops::yarn_mscale(s.factor, s.mscale_all_dim);
  if (const double asked = number(j, "attention_factor", follows); std::abs(asked - follows) > 1e-6 * follows)
    fail("rope_scaling.attention_factor: " + std::to_string(asked) +
             " is not supported, mscale and mscale_all_dim give " + std::to_string(follows),
         "express it by mscale");
  bool truncate = true;
  if (j.contains("truncate")) assign_field("rope_scaling.truncate", j["truncate"], truncate);
  if (!truncate)
    fail("rope_scaling.truncate: false is not supported", "the models of this family round the ramp's ends");
}

// Old files: {"type": "linear"}; newer ones {"rope_type": ...}, perhaps inside rope_parameters with rope_theta.
void parse_rope(ModelConfig& c, const json& j) {
  if (j.is_null()) {
    c.rope_scaling = {};
    return;
  }
  if (!j.is_object()) fail("rope_scaling: expected an object or null, got " + j.dump());
  if (j.contains("rope_theta")) assign_field("rope_theta", j["rope_theta"], c.rope_theta);
  std::string kind = "default";
  for (const char* key : {"type", "rope_type"})
    if (j.contains(key)) assign_field(std::string("rope_scaling.") + key, j[key], kind);
  require_one_of("rope_scaling.type", kind, {"default", "linear", "yarn"});
  ops::RopeScaling s;
  s.kind = kind == "linear" ? ops::RopeScaling::Kind::linear
           : kind == "yarn" ? ops::RopeScaling::Kind::yarn
                            : ops::RopeScaling::Kind::none;
  s.factor = number(j, "factor", 1.0);
  if (j.contains("original_max_position_embeddings"))
    assign_field("rope_scaling.original_max_position_embeddings", j["original_max_position_embeddings"],
                 s.original_max_position);
  s.beta_fast = number(j, "beta_fast", 32);
  s.beta_slow = number(j, "beta_slow", 1);
  s.mscale = number(j, "mscale", 1.0);
  s.mscale_all_dim = number(j, "mscale_all_dim", 0.0);
  require_understood(j, s);
  if (s.kind != ops::RopeScaling::Kind::none && !(s.factor > 0))
    fail("rope_scaling.factor: must be positive, is " + std::to_string(s.factor));
  if (s.original_max_position < 0)
    fail("rope_scaling.original_max_position_embeddings: must be positive, is " +
         std::to_string(s.original_max_position));
  c.rope_scaling = s;
}

json rope_to_json(const ops::RopeScaling& s) {
  if (s.kind == ops::RopeScaling::Kind::none) return nullptr;
  if (s.kind == ops::RopeScaling::Kind::linear) return {{"type", "linear"}, {"factor", s.factor}};
  return {{"type", "yarn"},
          {"factor", s.factor},
          {"original_max_position_embeddings", s.original_max_position},
          {"beta_fast", s.beta_fast},
          {"beta_slow", s.beta_slow},
          {"mscale", s.mscale},
          {"mscale_all_dim", s.mscale_all_dim}};
}

// Sizes are bounded so that products of three of them fit 64 bits.
constexpr int64_t kMaxSize = int64_t{1} << 24, kMaxLayers = 10000, kMaxExperts = 1024;

void in_range(const char* key, int64_t v, int64_t low, int64_t high = kMaxSize) {
  if (v < low)
    fail(std::string(key) + ": must " + (low > 0 ? "be positive" : "not be negative") + ", is " + std::to_string(v));
  if (v > high)
    fail(std::string(key) + ": " + std::to_string(v) + " is more than the largest supported, " + std::to_string(high));
}
void positive(const char* key, int64_t v) { in_range(key, v, 1); }

// An indexer of MLA (models.md F.1): its first channels rotate as the decoupled part of the keys does.
void validate_indexer(const ModelConfig& c) {
  positive("index_n_heads", c.index_n_heads);
  positive("index_head_dim", c.index_head_dim);
  if (!c.uses_mla())
    fail("index_topk: " + std::to_string(c.index_topk) + " needs latent attention, kv_lora_rank is 0",
         "set index_topk to 0");
  if (c.q_lora_rank == 0)
    fail("q_lora_rank: 0, but the indexer reads the query latent", "set q_lora_rank, or index_topk to 0");
  if (c.index_head_dim < c.qk_rope_head_dim)
    fail("index_head_dim: " + std::to_string(c.index_head_dim) + " is less than qk_rope_head_dim " +
             std::to_string(c.qk_rope_head_dim),
         "the indexer rotates as many channels as the keys do");
}

// V4: one latent head that is key and value, low-rank queries, grouped output projection.
void validate_compressed_attention(ModelConfig& c) {
  if (c.uses_mla())
    fail("compress_ratios: not together with kv_lora_rank " + std::to_string(c.kv_lora_rank),
         "V4's attention has no latent expansion");
  const auto listed = static_cast<int64_t>(c.compress_ratios.size());
  if (listed < c.num_hidden_layers || listed > c.num_hidden_layers + std::max<int64_t>(1, c.num_nextn_predict_layers))
    fail("compress_ratios: " + std::to_string(listed) + " entries for num_hidden_layers " +
             std::to_string(c.num_hidden_layers),
         "one for every layer, and one for every prediction module after them");
  bool indexed = false;
  for (const int64_t r : c.compress_ratios) {
    in_range("compress_ratios", r, 0);
    indexed |= r == layers::CompressedAttention::Spec::kIndexedRatio;
  }
  if (c.num_key_value_heads == 0) c.num_key_value_heads = 1;
  if (c.num_key_value_heads != 1)
    fail("num_key_value_heads: V4's attention has one, not " + std::to_string(c.num_key_value_heads));
  positive("head_dim", c.head_dim);
  positive("qk_rope_head_dim", c.qk_rope_head_dim);
  positive("q_lora_rank", c.q_lora_rank);
  positive("o_lora_rank", c.o_lora_rank);
  positive("o_groups", c.o_groups);
  positive("sliding_window", c.sliding_window);
  if (c.num_attention_heads % c.o_groups)
    fail("o_groups: " + std::to_string(c.o_groups) + " does not divide num_attention_heads " +
         std::to_string(c.num_attention_heads));
  const auto holds_rope = [&](const char* key, int64_t dim) {
    if (c.qk_rope_head_dim > dim)
      fail(std::string("qk_rope_head_dim: ") + std::to_string(c.qk_rope_head_dim) + " is more than " + key + " " +
           std::to_string(dim));
  };
  holds_rope("head_dim", c.head_dim);
  if (!(c.compress_rope_theta > 1))
    fail("compress_rope_theta: must be more than 1, is " + std::to_string(c.compress_rope_theta));
  if (!indexed) return;
  positive("index_n_heads", c.index_n_heads);
  positive("index_head_dim", c.index_head_dim);
  positive("index_topk", c.index_topk);
  holds_rope("index_head_dim", c.index_head_dim);
}

void validate_attention(ModelConfig& c) {
  positive("num_attention_heads", c.num_attention_heads);
  in_range("kv_lora_rank", c.kv_lora_rank, 0);
  if (c.uses_compressed_attention()) {
    validate_compressed_attention(c);
  } else if (c.uses_mla()) {
    if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
    positive("qk_nope_head_dim", c.qk_nope_head_dim);
    positive("qk_rope_head_dim", c.qk_rope_head_dim);
    positive("v_head_dim", c.v_head_dim);
    in_range("q_lora_rank", c.q_lora_rank, 0);
  } else {
    if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
    if (c.head_dim == 0) {
      if (c.hidden_size % c.num_attention_heads)
        fail("num_attention_heads: " + std::to_string(c.num_attention_heads) + " does not divide hidden_size " +
                 std::to_string(c.hidden_size),
             "set head_dim, or a number of heads that divides hidden_size");
      c.head_dim = c.hidden_size / c.num_attention_heads;
    }
    positive("head_dim", c.head_dim);
    positive("num_key_value_heads", c.num_key_value_heads);
    if (c.num_attention_heads % c.num_key_value_heads)
      fail("num_key_value_heads: " + std::to_string(c.num_key_value_heads) + " does not divide num_attention_heads " +
           std::to_string(c.num_attention_heads));
  }
  in_range("index_topk", c.index_topk, 0);
  if (c.uses_indexer() && !c.uses_compressed_attention()) validate_indexer(c);
  if (c.rope_dim() % 2)
    fail(std::string(c.uses_mla() || c.uses_compressed_attention() ? "qk_rope_head_dim" : "head_dim") +
         ": rotary width must be even, is " + std::to_string(c.rope_dim()));
}

void validate_experts(const ModelConfig& c) {
  positive("moe_intermediate_size", c.moe_intermediate_size);
  positive("num_experts_per_tok", c.num_experts_per_tok);
  in_range("n_shared_experts", c.n_shared_experts, 0, kMaxExperts);
  if (!(c.routed_scaling_factor > 0))
    fail("routed_scaling_factor: must be positive, is " + std::to_string(c.routed_scaling_factor));
  if (c.num_experts_per_tok > c.n_routed_experts)
    fail("num_experts_per_tok: " + std::to_string(c.num_experts_per_tok) + " is more than n_routed_experts " +
             std::to_string(c.n_routed_experts),
         "a token cannot choose more experts than there are");
  require_one_of("scoring_func", c.scoring_func, {"softmax", "sigmoid", "sqrtsoftplus"});
  require_one_of("topk_method", c.topk_method, {"greedy", "group_limited_greedy", "noaux_tc"});
  if (c.topk_method == "greedy") return;
  positive("n_group", c.n_group);
  positive("topk_group", c.topk_group);
  if (c.n_routed_experts % c.n_group)
    fail("n_group: " + std::to_string(c.n_group) + " does not divide n_routed_experts " +
         std::to_string(c.n_routed_experts));
  if (c.topk_group > c.n_group)
    fail("topk_group: " + std::to_string(c.topk_group) + " is more than n_group " + std::to_string(c.n_group));
  if (c.topk_group * (c.n_routed_experts / c.n_group) < c.num_experts_per_tok)
    fail("num_experts_per_tok: " + std::to_string(c.num_experts_per_tok) + " is more than the " +
         std::to_string(c.topk_group * (c.n_routed_experts / c.n_group)) + " experts of topk_group groups");
}

// H_res without iterations: not for every number of streams.
void validate_res_form(const ModelConfig& c) {
  const std::string form = "hc_res_form " + c.hc_res_form,
                    streams = "hc_mult: " + std::to_string(c.hc_mult) + " streams";
  if (c.hc_res_form == "lite" && c.hc_mult > ops::kMaxLiteStreams)
    fail(streams + " have more than 120 permutations, and " + form + " has a logit for each",
         "at most " + std::to_string(ops::kMaxLiteStreams) + " streams, or hc_res_form=sinkhorn");
  if (c.hc_res_form == "kron" && (c.hc_mult & (c.hc_mult - 1)))
    fail(streams + " are no power of two, and " + form + " is a product of 2x2 factors",
         "1, 2, 4 or 8 streams, or hc_res_form=sinkhorn");
  if (c.hc_sinkhorn_iters != ModelConfig{}.hc_sinkhorn_iters)
    fail("hc_sinkhorn_iters: " + std::to_string(c.hc_sinkhorn_iters) + ", but " + form + " does not iterate",
         "leave hc_sinkhorn_iters out, or set hc_res_form=sinkhorn");
}

void validate_residual(const ModelConfig& c) {
  require_one_of("residual", c.residual, {"plain", "hc", "mhc"});
  if (c.residual == "plain") return;
  if (c.hc_mult < 1 || c.hc_mult > 8) fail("hc_mult: 1 to 8 streams, got " + std::to_string(c.hc_mult));
  if (!(c.hc_eps >= 0)) fail("hc_eps: must not be negative, is " + std::to_string(c.hc_eps));
  if (c.hc_sinkhorn_iters < 1 || c.hc_sinkhorn_iters > 1000)
    fail("hc_sinkhorn_iters: 1 to 1000, got " + std::to_string(c.hc_sinkhorn_iters));
  require_one_of("hc_convention", c.hc_convention, {"v4", "paper"});
  require_one_of("hc_pre", c.hc_pre, {"learned", "fixed"});
  require_one_of("hc_post", c.hc_post, {"learned", "fixed"});
  require_one_of("hc_res", c.hc_res, {"learned", "fixed"});
  require_one_of("hc_res_form", c.hc_res_form, {"sinkhorn", "lite", "kron"});
  require_one_of("hc_head", c.hc_head, {"learned", "sum"});
  require_one_of("hc_init_pre", c.hc_init_pre, {"pattern", "zero"});
  if (c.residual == "mhc" && c.hc_res_form != "sinkhorn") validate_res_form(c);
}

}  // namespace

void validate(ModelConfig& c) {
  find_model_type(c.model_type);
  positive("vocab_size", c.vocab_size);
  positive("hidden_size", c.hidden_size);
  in_range("num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  in_range("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, kMaxLayers);
  positive("max_position_embeddings", c.max_position_embeddings);
  if (!(c.rms_norm_eps > 0)) fail("rms_norm_eps: must be positive");
  if (!(c.rope_theta > 1)) fail("rope_theta: must be more than 1, is " + std::to_string(c.rope_theta));
  if (!(c.initializer_range >= 0))
    fail("initializer_range: must not be negative, is " + std::to_string(c.initializer_range));
  in_range("n_routed_experts", c.n_routed_experts, 0, kMaxExperts);
  in_range("first_k_dense_replace", c.first_k_dense_replace, 0);
  positive("moe_layer_freq", c.moe_layer_freq);
  if (c.rope_scaling.kind == ops::RopeScaling::Kind::yarn && c.rope_scaling.original_max_position == 0)
    c.rope_scaling.original_max_position = c.max_position_embeddings;
  validate_attention(c);
  bool any_dense = false;
  for (int64_t i = 0; i < c.blocks(); ++i) any_dense |= !c.is_moe_layer(i);
  if (any_dense) positive("intermediate_size", c.intermediate_size);
  if (c.n_routed_experts > 0) validate_experts(c);
  in_range("num_hash_layers", c.num_hash_layers, 0);
  if (!(c.swiglu_limit >= 0)) fail("swiglu_limit: must not be negative, is " + std::to_string(c.swiglu_limit));
  validate_residual(c);
  validate_type(c);
}

bool ModelConfig::uses_indexer() const {
  if (index_topk <= 0) return false;
  return !uses_compressed_attention() || std::count(compress_ratios.begin(), compress_ratios.end(),
                                                    layers::CompressedAttention::Spec::kIndexedRatio) > 0;
}

layers::Mla::Spec ModelConfig::mla_spec() const {
  layers::Mla::Spec s;
  s.dim = hidden_size;
  s.heads = num_attention_heads;
  s.nope = qk_nope_head_dim;
  s.rope = qk_rope_head_dim;
  s.v = v_head_dim;
  s.q_lora = q_lora_rank;
  s.kv_lora = kv_lora_rank;
  double scale = 1.0 / std::sqrt(static_cast<double>(s.qk()));
  if (rope_scaling.kind == ops::RopeScaling::Kind::yarn && rope_scaling.mscale_all_dim != 0) {
    const double m = ops::yarn_mscale(rope_scaling.factor, rope_scaling.mscale_all_dim);
    scale *= m * m;
  }
  s.scale = static_cast<float>(scale);
  s.layout = rope_interleave ? ops::RopeLayout::interleaved : ops::RopeLayout::half_split;
  return s;
}

layers::SparseMla::Spec ModelConfig::sparse_mla_spec() const {
  layers::SparseMla::Spec s;
  s.mla = mla_spec();
  s.indexer.dim = hidden_size;
  s.indexer.q_lora = q_lora_rank;
  s.indexer.heads = index_n_heads;
  s.indexer.head_dim = index_head_dim;
  s.indexer.topk = index_topk;
  return s;
}

layers::Gqa::Spec ModelConfig::gqa_spec() const {
  return {hidden_size,
          num_attention_heads,
          num_key_value_heads,
          head_dim,
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))),
          ops::RopeLayout::half_split};
}

layers::CompressedAttention::Spec ModelConfig::compressed_attention_spec(int64_t block) const {
  layers::CompressedAttention::Spec s;
  s.dim = hidden_size;
  s.heads = num_attention_heads;
  s.head_dim = head_dim;
  s.rope = qk_rope_head_dim;
  s.q_lora = q_lora_rank;
  s.groups = o_groups;
  s.o_lora = o_lora_rank;
  s.window = sliding_window;
  s.ratio = compress_ratio(block);
  if (s.indexed()) {
    s.index_heads = index_n_heads;
    s.index_dim = index_head_dim;
    s.index_topk = index_topk;
  }
  s.eps = static_cast<float>(rms_norm_eps);
  return s;
}

layers::Moe::Spec ModelConfig::moe_spec(int64_t block) const {
  layers::Moe::Spec s;
  if (swiglu_limit > 0) s.limit = static_cast<float>(swiglu_limit);
  const bool hashed =
      block < std::min(num_hash_layers, num_hidden_layers);  // a prediction module never is (models.md G.8)
  if (hashed) s.hash_vocab = vocab_size;
  s.dim = hidden_size;
  s.inter = moe_intermediate_size;
  s.shared_inter = n_shared_experts * moe_intermediate_size;
  s.rule.scoring = scoring_func == "softmax"   ? ops::Scoring::softmax
                   : scoring_func == "sigmoid" ? ops::Scoring::sigmoid
                                               : ops::Scoring::sqrtsoftplus;
  s.rule.experts = n_routed_experts;
  s.rule.active = num_experts_per_tok;
  if (topk_method != "greedy") {
    s.rule.groups = n_group;
    s.rule.active_groups = topk_group;
  }
  s.rule.bias = topk_method == "noaux_tc" && !hashed;
  // The softmax models normalise when there is more than one (models.md D.5), Mixtral always (B).
  s.rule.normalise =
      norm_topk_prob && (scoring_func != "softmax" || num_experts_per_tok > 1 || model_type == "mixtral");
  // V2 multiplies by the factor only where it does not normalise (models.md D.5); V3 and V4 do both.
  s.rule.scaling = s.rule.normalise && scoring_func == "softmax" ? 1.f : static_cast<float>(routed_scaling_factor);
  return s;
}

ops::ResidualSpec ModelConfig::residual_spec() const {
  ops::ResidualSpec s;
  s.kind = residual == "plain" ? ops::ResidualKind::plain
           : residual == "hc"  ? ops::ResidualKind::hc
                               : ops::ResidualKind::mhc;
  s.streams = streams();
  s.dim = hidden_size;
  s.norm_eps = static_cast<float>(rms_norm_eps);
  if (s.kind == ops::ResidualKind::mhc)
    s.res_form = hc_res_form == "lite"   ? ops::ResForm::lite
                 : hc_res_form == "kron" ? ops::ResForm::kron
                                         : ops::ResForm::sinkhorn;
  s.sinkhorn_iters = static_cast<int>(hc_sinkhorn_iters);
  s.convention = hc_convention == "v4" ? ops::HcConvention::v4 : ops::HcConvention::paper;
  s.hc_eps = s.convention == ops::HcConvention::v4 ? static_cast<float>(hc_eps) : 0.f;
  s.dynamic = hc_dynamic;
  s.learn_pre = hc_pre == "learned";
  s.learn_post = hc_post == "learned";
  s.learn_res = hc_res == "learned";
  return s;
}

BlockSpec ModelConfig::block_spec(int64_t block) const {
  BlockSpec b;
  if (uses_mla() && uses_indexer())
    b.attn = sparse_mla_spec();
  else if (uses_mla())
    b.attn = mla_spec();
  else if (uses_compressed_attention())
    b.attn = compressed_attention_spec(block);
  else
    b.attn = gqa_spec();
  if (is_moe_layer(block))
    b.ffn = moe_spec(block);
  else
    b.ffn = layers::DenseFfn::Spec{hidden_size, intermediate_size,
                                   swiglu_limit > 0 ? static_cast<float>(swiglu_limit) : ops::kNoLimit};
  b.rope = compress_ratio(block) > 0;
  return b;
}

std::vector<RopeSpec> ModelConfig::rope_specs() const {
  if (!uses_compressed_attention()) return {{rope_dim(), rope_theta, rope_scaling}};
  ops::RopeScaling plain = rope_scaling;  // V4 scales positions of compressing layers, and no magnitude (models.md G.3)
  plain.mscale = plain.mscale_all_dim = 0;
  return {{rope_dim(), rope_theta, {}}, {rope_dim(), compress_rope_theta, plain}};
}

bool set_model_field(ModelConfig& c, const std::string& key, const json& value) {
  bool found = false;
  for_each_field(c, [&](const char* name, auto& field) {
    if (key == name) {
      assign_field(key, value, field);
      found = true;
    }
  });
  if (key == "rope_scaling" || key == "rope_parameters") {
    parse_rope(c, value);
    found = true;
  }
  return found;
}

std::vector<std::string> model_setting_names() {
  std::vector<std::string> names{"rope_scaling"};
  ModelConfig c;
  for_each_field(c, [&](const char* name, auto&) { names.emplace_back(name); });
  return names;
}

// config.json -> settings: the type's spelling is undone, defaults of what released files leave out are filled in.
ModelConfig config_from_json(const json& j) {
  if (!j.is_object()) fail("config.json is not a JSON object");
  if (!j.contains("model_type")) fail("config.json has no model_type", "is this a Hugging Face model directory?");
  ModelConfig c;
  assign_field("model_type", j["model_type"], c.model_type);
  const ModelType& type = find_model_type(c.model_type);
  type.defaults(c);
  const json settings = type.to_settings(j);
  const std::set<std::string> own(type.settings.begin(), type.settings.end());
  json unknown = json::object();
  const auto set = [&](const std::string& key, const json& value) {
    if (value.is_null() && key.rfind("rope_", 0) == 0) return;  // says nothing beside the other spelling
    if (!(own.empty() || own.count(key)) || !set_model_field(c, key, value)) unknown[key] = value;
  };
  // What rope_parameters says counts beside rope_theta, and does not beside rope_scaling.
  const char* kLast = "rope_parameters";
  for (const auto& [key, value] : settings.items())
    if (key != kLast) set(key, value);
  const bool scaled =
      settings.contains("rope_scaling") && settings["rope_scaling"].is_object() && !settings["rope_scaling"].empty();
  if (settings.contains(kLast) && !scaled) set(kLast, settings[kLast]);
  c.unknown_keys = unknown.dump();
  validate(c);
  return c;
}

std::string unknown_key_names(const ModelConfig& c) {
  static const std::set<std::string> read_elsewhere{"architectures", "quantization_config", "bos_token_id",
                                                    "eos_token_id", "chat_encoder"};
  const json unknown = json::parse(c.unknown_keys);
  std::string names;
  for (const auto& [key, value] : unknown.items())
    if (!read_elsewhere.count(key)) names += (names.empty() ? "" : ", ") + key;
  return names;
}

json config_to_json(const ModelConfig& c) {
  const ModelType& type = find_model_type(c.model_type);
  const std::set<std::string> own(type.settings.begin(), type.settings.end());
  json j = json::parse(c.unknown_keys);
  for_each_field(c, [&](const char* name, const auto& field) {
    if (own.empty() || own.count(name)) j[name] = field;
  });
  if (c.uses_mla() && c.q_lora_rank == 0) j["q_lora_rank"] = nullptr;
  j["rope_scaling"] = rope_to_json(c.rope_scaling);
  if (type.architecture && !j.contains("architectures")) j["architectures"] = {type.architecture};
  return type.from_settings(std::move(j));
}

std::string describing_type(const ModelConfig& c) {
  if (c.model_type != "birkhoff") return c.model_type;
  ModelConfig ours = c;
  ours.unknown_keys = "{}";
  const json wanted = config_to_json(ours);
  for (const ModelType* type : model_types()) {
    if (type->name == ours.model_type) continue;
    ModelConfig theirs = ours;
    theirs.model_type = type->name;
    try {
      ModelConfig read = config_from_json(config_to_json(theirs));
      read.model_type = "birkhoff";
      read.unknown_keys = "{}";
      const bool same_rule =
          ours.n_routed_experts == 0 || theirs.moe_spec(0).rule.normalise == ours.moe_spec(0).rule.normalise;
      if (same_rule && config_to_json(read) == wanted) return type->name;
    } catch (const Error&) {  // this type cannot say it
    }
  }
  return "birkhoff";
}

}  // namespace birkhoff::model
