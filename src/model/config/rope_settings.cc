#include "model/config/rope_settings.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/fields.h"
#include "model/config/json_fields.h"
#include "model/config/range.h"

namespace birkhoff::model {
namespace {

using nlohmann::json;

double number(const json& o, const char* key, double otherwise) {
  const auto it = o.find(key);
  if (it == o.end() || it->is_null()) return otherwise;
  double v = 0;
  assign_field(std::string("rope_scaling.") + key, *it, v);
  return v;
}

// The magnitude of YaRN: attention_factor in the place of the one that follows from the rest, or attn_factor times that
// one (models.md A.4: programs disagree about the second). Returns attn_factor where it counts.
double read_magnitude(const json& j, ops::RopeScaling& s) {
  const double follows = ops::rope_gain(s), absent = std::nan("");
  const double whole = number(j, "attention_factor", absent), times = number(j, "attn_factor", absent);
  for (const auto& [key, v] : {std::pair{"rope_scaling.attention_factor", whole}, {"rope_scaling.attn_factor", times}})
    if (!std::isnan(v)) require_in_range(key, v, {0, 1000, Range::above});
  if (!std::isnan(whole) && !std::isnan(times))
    refuse("rope_scaling: attention_factor " + std::to_string(whole) + " and attn_factor " + std::to_string(times) +
               " beside each other",
           "keep attention_factor, which is what cos and sin are multiplied by");
  const double asked = !std::isnan(whole) ? whole : !std::isnan(times) ? times * follows : follows;
  if (std::abs(asked - follows) > 1e-6 * follows) s.attention_factor = asked;
  return std::isnan(times) ? 0 : times;
}

// What transformers' YaRN may say beyond the papers'.
void require_understood(const json& j) {
  bool truncate = true;
  if (j.contains("truncate")) assign_field("rope_scaling.truncate", j["truncate"], truncate);
  if (!truncate)
    refuse("rope_scaling.truncate: false is not supported", "the models of this family round the ramp's ends");
}

// The turns between which Llama 3 mixes.
void require_turns(const ops::RopeScaling& s) {
  for (const auto& [key, v] : {std::pair{"rope_scaling.low_freq_factor", s.low_freq_factor},
                               {"rope_scaling.high_freq_factor", s.high_freq_factor}}) {
    if (std::isnan(v))
      refuse(std::string(key) + ": llama3 scaling needs it, the object has none", "released models have 1 and 4");
    require_in_range(key, v, {0, 1e6, Range::above});
  }
  if (s.low_freq_factor >= s.high_freq_factor)
    refuse("rope_scaling.low_freq_factor: " + std::to_string(s.low_freq_factor) +
           " is not less than high_freq_factor " + std::to_string(s.high_freq_factor));
}

// What transformers would guess, or fail at, is said by the file or refused: a wrong factor trains without a sign of
// it.
void require_complete(ops::RopeScaling& s) {
  using Kind = ops::RopeScaling::Kind;
  if (s.kind == Kind::none) {
    s.factor = 1;
    return;
  }
  const std::string kind = name_of(s.kind);
  if (std::isnan(s.factor))
    refuse("rope_scaling.factor: " + kind + " scaling needs one, the object has none",
           "give the factor the model was trained with, or rope_scaling=null");
  require_in_range("rope_scaling.factor", s.factor, {0, 1e6, Range::above});
  if (s.kind == Kind::linear) return;
  if (s.original_max_position == 0)
    refuse("rope_scaling.original_max_position_embeddings: " + kind + " scaling needs it, the object has none",
           "give the length the model was first trained with, or rope_scaling=null");
  require_in_range("rope_scaling.original_max_position_embeddings", s.original_max_position, {1, kMaxSize});
  if (s.kind == Kind::llama3) return require_turns(s);
  for (const auto& [key, v] :
       {std::pair{"rope_scaling.beta_fast", s.beta_fast}, {"rope_scaling.beta_slow", s.beta_slow}})
    require_in_range(key, v, {0, 1e6, Range::above});
  for (const auto& [key, v] :
       {std::pair{"rope_scaling.mscale", s.mscale}, {"rope_scaling.mscale_all_dim", s.mscale_all_dim}})
    require_in_range(key, v, {0, 1000});
}

}  // namespace

void parse_rope(ModelConfig& c, const json& j) {
  c.rope_attn_factor = 0;
  if (j.is_null()) {
    c.rope_scaling = {};
    return;
  }
  if (!j.is_object()) refuse("rope_scaling: expected an object or null, got " + j.dump());
  if (j.contains("rope_theta")) assign_field("rope_theta", j["rope_theta"], c.rope_theta);
  ops::RopeScaling s;
  for (const char* key : {"type", "rope_type"})
    if (j.contains(key)) assign_field(std::string("rope_scaling.") + key, j[key], s.kind);
  const double absent = std::nan("");
  s.factor = number(j, "factor", absent);
  if (j.contains("original_max_position_embeddings"))
    assign_field("rope_scaling.original_max_position_embeddings", j["original_max_position_embeddings"],
                 s.original_max_position);
  s.beta_fast = number(j, "beta_fast", 32);
  s.beta_slow = number(j, "beta_slow", 1);
  s.mscale = number(j, "mscale", 1.0);
  s.mscale_all_dim = number(j, "mscale_all_dim", 0.0);
  if (s.kind == ops::RopeScaling::Kind::llama3) {
    s.low_freq_factor = number(j, "low_freq_factor", absent);
    s.high_freq_factor = number(j, "high_freq_factor", absent);
  }
  require_complete(s);
  if (s.kind == ops::RopeScaling::Kind::yarn) {
    require_understood(j);
    c.rope_attn_factor = read_magnitude(j, s);
  }
  c.rope_scaling = s;
}

json rope_to_json(const ops::RopeScaling& s) {
  if (s.kind == ops::RopeScaling::Kind::none) return nullptr;
  if (s.kind == ops::RopeScaling::Kind::linear) return {{"type", name_of(s.kind)}, {"factor", s.factor}};
  if (s.kind == ops::RopeScaling::Kind::llama3)
    return {{"rope_type", name_of(s.kind)},
            {"factor", s.factor},
            {"low_freq_factor", s.low_freq_factor},
            {"high_freq_factor", s.high_freq_factor},
            {"original_max_position_embeddings", s.original_max_position}};
  json j{{"type", name_of(s.kind)},
         {"factor", s.factor},
         {"original_max_position_embeddings", s.original_max_position},
         {"beta_fast", s.beta_fast},
         {"beta_slow", s.beta_slow},
         {"mscale", s.mscale},
         {"mscale_all_dim", s.mscale_all_dim}};
  if (s.attention_factor != 0) j["attention_factor"] = s.attention_factor;
  return j;
}

}  // namespace birkhoff::model
