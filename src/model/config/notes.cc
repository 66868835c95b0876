#include "model/config/notes.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model {
namespace {

using nlohmann::json;

bool is_number(const json& v, double what) { return v.is_number() && v.get<double>() == what; }
bool says_nothing(const json& v) { return v.is_null() || v == false || is_number(v, 0) || v == json::array(); }

// Whether the key, which no setting of the type took, would change the arithmetic.
bool changes(const ModelConfig& c, const json& keys, const std::string& key, const json& v) {
  if (key == "sliding_window")  // a window that no sequence leaves, or that is switched off, is none
    return !says_nothing(v) && keys.value("use_sliding_window", json(true)) != false &&
           !(v.is_number() && v.get<double>() >= static_cast<double>(c.max_position_embeddings));
  if (key == "partial_rotary_factor")  // latent attention has qk_rope_head_dim instead
    return !v.is_null() && !is_number(v, 1) && !c.uses_mla() && !c.uses_compressed_attention();
  if (key == "layer_types")
    return v.is_array() && std::any_of(v.begin(), v.end(), [](const json& kind) { return kind != "full_attention"; });
  static constexpr const char* kFactors[] = {"logit_scale",          "logits_scaling",      "attention_multiplier",
                                             "embedding_multiplier", "residual_multiplier", "scale_emb"};
  static constexpr const char* kOthers[] = {"final_logit_softcapping",
                                            "attn_logit_softcapping",
                                            "query_pre_attn_scalar",
                                            "attention_chunk_size",
                                            "clip_qkv",
                                            "qk_layernorm",
                                            "use_qk_norm",
                                            "no_rope_layers"};
  const auto in = [&](const auto& list) { return std::find(std::begin(list), std::end(list), key) != std::end(list); };
  return in(kFactors) ? !v.is_null() && !is_number(v, 1) : in(kOthers) && !says_nothing(v);
}

// Programs disagree about this key of YaRN (models.md A.4).
std::string note_of_attn_factor(const ModelConfig& c) {
  ops::RopeScaling without = c.rope_scaling;
  without.attention_factor = 0;
  char text[240];
  std::snprintf(
      text, sizeof text,
      "config.json: rope_scaling.attn_factor %.6g multiplies the gain %.6g that follows from the rest: cos and "
      "sin are multiplied by %.6g; programs that skip the key multiply by %.6g",
      c.rope_attn_factor, ops::rope_gain(without), ops::rope_gain(c.rope_scaling), ops::rope_gain(without));
  return text;
}

}  // namespace

std::vector<std::string> reading_notes(const ModelConfig& c) {
  std::vector<std::string> notes;
  if (c.rope_attn_factor != 0) notes.push_back(note_of_attn_factor(c));
  if (!c.uses_mla() && c.latent_attention != LatentAttention::by_role)
    notes.push_back(std::string("the model has no latent attention, whose form may be \"") +
                    name_of(c.latent_attention) + '"');
  const json keys = json::parse(c.unknown_keys);
  for (const auto& [key, value] : keys.items()) {
    if (!changes(c, keys, key, value)) continue;
    std::string text = value.dump();
    if (text.size() > 40) text = text.substr(0, 37) + "...";
    notes.push_back("config.json: " + key + " " + text + " is not honoured; programs that do give other results");
  }
  return notes;
}

std::vector<std::string> writing_notes(const ModelConfig& c) {
  const std::string note = find_model_type(c.model_type).note_when_written(c);
  return note.empty() ? std::vector<std::string>{} : std::vector<std::string>{note};
}

}  // namespace birkhoff::model
