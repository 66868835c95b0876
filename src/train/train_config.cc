#include "train/train_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/nearest.h"
#include "model/config/fields.h"
#include "model/config/json_fields.h"
#include "model/config/range.h"
#include "train/tensor_names.h"

namespace birkhoff::train {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSteps = int64_t{1} << 40, kMaxRows = int64_t{1} << 24, kMaxSeed = int64_t{1} << 53;

template <class C, class F>
void for_each_train_field(C& c, F&& f) {
  f("steps", c.steps, model::Range{0, kMaxSteps});
  f("seq_len", c.seq_len, model::Range{1, kMaxRows});
  f("batch_size", c.batch_size, model::Range{1, kMaxRows});
  f("grad_accum", c.grad_accum, model::Range{1, kMaxRows});
  f("batch_ramp", c.batch_ramp, model::Range{0, kMaxSteps});
  f("seed", c.seed, model::Range{0, kMaxSeed});
  f("dtype", c.dtype);
  f("recompute", c.recompute);
  f("optimizer", c.optimizer);
  f("schedule", c.schedule);
  f("lr", c.lr, model::Range{0, 1e6});
  f("min_lr", c.min_lr, model::Range{-1, 1e6});
  f("warmup_steps", c.warmup_steps, model::Range{0, kMaxSteps});
  f("beta1", c.beta1, model::Range{0, 1, model::Range::below});
  f("beta2", c.beta2, model::Range{0, 1, model::Range::below});
  f("eps", c.eps, model::Range{0, 1e6, model::Range::above});
  f("weight_decay", c.weight_decay, model::Range{0, 1e4});
  f("decay_1d", c.decay_1d);
  f("momentum", c.momentum, model::Range{0, 1, model::Range::below});
  f("grad_clip", c.grad_clip, model::Range{-1, 1e6});
  f("aux_expert", c.aux_expert, model::Range{0, 1e4});
  f("aux_device", c.aux_device, model::Range{0, 1e4});
  f("aux_devices", c.aux_devices, model::Range{1, 1024});
  f("aux_communication", c.aux_communication, model::Range{0, 1e4});
  f("aux_sequence", c.aux_sequence, model::Range{0, 1e4});
  f("aux_mixtral", c.aux_mixtral, model::Range{0, 1e4});
  f("z_loss", c.z_loss, model::Range{0, 1e4});
  f("mtp_loss", c.mtp_loss, model::Range{0, 1e4});
  f("indexer_stage", c.indexer_stage);
  f("indexer_kl", c.indexer_kl, model::Range{0, 1e4, model::Range::above});
  f("bias_update_speed", c.bias_update_speed, model::Range{0, 1e4});
  f("checkpoint_every", c.checkpoint_every, model::Range{0, kMaxSteps});
  f("checkpoint_minutes", c.checkpoint_minutes, model::Range{0, 1e6});
  f("keep", c.keep, model::Range{1, kMaxRows});
  f("keep_best", c.keep_best);
  f("eval_every", c.eval_every, model::Range{0, kMaxSteps});
  f("gain_every", c.gain_every, model::Range{0, kMaxSteps});
  f("fim_rate", c.fim_rate, model::Range{0, 1});
  f("trainable", c.trainable);
  f("lora.rank", c.lora_rank, model::Range{0, model::kMaxLoraRank});
  f("lora.alpha", c.lora_alpha, model::Range{0, 1e6});
  f("lora.targets", c.lora_targets);
}

[[noreturn]] void fail(const std::string& what, const std::string& hint = "") { throw Error("settings", what, hint); }

bool set_train_field(TrainConfig& c, const std::string& key, const json& value) {
  bool found = false;
  for_each_train_field(c, [&](const char* name, auto& field, const auto&...) {
    if (key != name) return;
    model::assign_field(key, value, field);
    found = true;
  });
  return found;
}

// A list of words, or its text on a command line, as one string.
json comma_separated(const json& value) {
  const json list = value.is_string() ? json::parse(value.get<std::string>(), nullptr, false) : value;
  if (!list.is_array()) return value;
  std::string joined;
  for (const json& word : list) {
    if (!word.is_string()) return value;  // refused where a string is expected
    joined += (joined.empty() ? "" : ",") + word.get<std::string>();
  }
  return joined;
}

void set(RunConfig& c, const std::string& key, const json& given) {
  const json value = key == "lora.targets" ? comma_separated(given) : given;
  if (set_train_field(c.train, key, value) || model::set_model_field(c.model, key, value)) return;
  const std::string near = nearest(key, setting_names());
  throw Error("settings", "unknown setting \"" + key + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"),
              "docs/settings.md lists every setting", ExitCode::usage);
}

// Tokens of one part of a step are addressed by 32-bit numbers.
void validate_sizes(const TrainConfig& c) {
  constexpr int64_t kMaxTokens = INT32_MAX;
  if (c.batch_size % c.grad_accum)
    fail("grad_accum: " + std::to_string(c.grad_accum) + " does not divide batch_size " + std::to_string(c.batch_size));
  const int64_t rows = c.batch_size / c.grad_accum;
  if (c.seq_len > kMaxTokens / rows)
    fail("batch_size / grad_accum * seq_len: " + std::to_string(rows) + " * " + std::to_string(c.seq_len) +
             " tokens at once are more than " + std::to_string(kMaxTokens),
         "raise grad_accum");
}

void validate_lora(const TrainConfig& c, const model::ModelConfig& m) {
  if (c.lora_rank == 0 && (c.lora_alpha != 0 || !c.lora_targets.empty()))
    fail("lora.rank: must be at least 1 for adapters, is 0", "set lora.rank, or leave lora.alpha and lora.targets out");
  if (c.lora_rank) model::lora_modules(m, c.lora_targets);
}

void validate(const TrainConfig& c, const model::ModelConfig& m) {
  for_each_train_field(c, model::CheckRange{});
  validate_sizes(c);
  validate_lora(c, m);
  tensors_matching(c.trainable);  // throws
  if (c.indexer_stage == IndexerStage::dense && !m.uses_indexer())
    fail("indexer_stage: dense trains indexers alone, and the model has none (index_topk is 0)",
         "set index_topk, or another indexer_stage");
  if (c.seq_len > m.max_position_embeddings)
    fail("seq_len: " + std::to_string(c.seq_len) + " is more than max_position_embeddings " +
         std::to_string(m.max_position_embeddings));
  if (m.n_routed_experts && m.n_routed_experts % c.aux_devices)
    fail("aux_devices: " + std::to_string(c.aux_devices) + " does not divide n_routed_experts " +
         std::to_string(m.n_routed_experts));
  if (c.bias_update_speed != 0 && m.n_routed_experts && m.topk_method != model::TopkMethod::noaux_tc)
    fail("bias_update_speed: topk_method \"" + std::string(name_of(m.topk_method)) + "\" has no bias to move",
         "set topk_method=noaux_tc, or bias_update_speed=0");
}

// All settings of a model under our names.
json plain_settings(model::ModelConfig c) {
  c.model_type = model::kOwnType;
  c.unknown_keys = "{}";
  return model::config_to_json(c);
}

// Whether a setting changes anything of this model.
bool matters(const model::ModelConfig& c, const std::string& key) {
  const auto one_of = [&](std::initializer_list<const char*> keys) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  if (key.rfind("hc_", 0) == 0) return c.residual != ops::ResidualKind::plain;
  if (key.rfind("index_", 0) == 0) return c.uses_indexer();
  if (one_of({"q_lora_rank", "qk_rope_head_dim"})) return c.uses_mla() || c.uses_compressed_attention();
  if (one_of({"qk_nope_head_dim", "v_head_dim", "rope_interleave"})) return c.uses_mla();
  if (one_of({"head_dim", "num_key_value_heads"})) return !c.uses_mla();
  if (one_of({"sliding_window", "o_groups", "o_lora_rank", "compress_rope_theta"}))
    return c.uses_compressed_attention();
  if (one_of({"n_group", "topk_group"})) return c.n_routed_experts > 0 && c.topk_method != model::TopkMethod::greedy;
  if (one_of({"n_shared_experts", "num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace",
              "moe_layer_freq", "scoring_func", "topk_method", "norm_topk_prob", "routed_scaling_factor"}))
    return c.n_routed_experts > 0;
  return true;
}

// A released type's files have no place for some settings: those nobody gave are what the type means, others are
// refused rather than lost.
void settle_type(model::ModelConfig& c, const std::set<std::string>& given) {
  if (c.model_type == model::kOwnType) return;
  const json wanted = plain_settings(c), written = plain_settings(model::config_from_json(model::config_to_json(c)));
  for (const auto& [key, value] : written.items()) {
    if (key == "model_type" || wanted.value(key, json()) == value || !matters(c, key)) continue;
    if (given.count(key))
      fail(key + ": model_type " + c.model_type + " has no place for " + wanted.value(key, json()).dump() +
               ", it means " + value.dump(),
           "leave model_type out, or that setting");
    model::set_model_field(c, key, value);
  }
}

// Keys that only the config.json of a model directory has.
bool is_of_directory(const json& config) {
  for (const char* key : {"architectures", "transformers_version", "torch_dtype", "bos_token_id", "eos_token_id"})
    if (config.contains(key)) return true;
  return false;
}

// index_topk may differ: no weight depends on how many an indexer selects, and a model trained with all (index_topk as
// long as its windows) becomes a sparse one this way.
void require_same_model(const model::ModelConfig& has, const model::ModelConfig& asked) {
  if (has.model_type != asked.model_type && asked.model_type != model::kOwnType)
    fail("model_type: the model has \"" + has.model_type + "\", asked for \"" + asked.model_type + "\"",
         "model settings come with the weights; leave them out");
  const json before = plain_settings(has), after = plain_settings(asked);
  for (const auto& [key, value] : after.items())
    if (!(key == "index_topk" && has.uses_indexer() && asked.uses_indexer()) &&
        before.value(key, json(nullptr)) != value)
      fail(key + ": the model has " + before.value(key, json(nullptr)).dump() + ", asked for " + value.dump(),
           "model settings come with the weights; leave them out");
}

}  // namespace

model::TrainingScope TrainConfig::scope(const model::ModelConfig& m) const {
  model::TrainingScope s;
  s.trainable = trainable;
  s.is_trained = tensors_matching(trainable);
  if (lora_rank)
    s.lora = {lora_rank, lora_alpha != 0 ? lora_alpha : static_cast<double>(lora_rank),
              model::lora_modules(m, lora_targets)};
  return s;
}

model::ModelConfig model_of_directory(json config) {
  for (const char* key : {"training", "torch_dtype", "dtype"}) config.erase(key);
  return model::config_from_json(config);
}

RunConfig make_run_config(const json& base, const std::vector<std::string>& overrides, const model::ModelConfig* from) {
  if (!base.is_object()) fail("the configuration is not a JSON object");
  RunConfig c;
  std::set<std::string> given;
  const bool of_directory = !from && is_of_directory(base);
  if (from) c.model = *from;
  if (of_directory) c.model = model_of_directory(base);
  for (const auto& [key, value] : base.items()) {
    if (key == "training" && value.is_object()) {
      for (const auto& [k, v] : value.items()) set(c, k, v);
    } else if (!of_directory) {
      set(c, key, value);
      given.insert(key);
    }
  }
  for (const std::string& text : overrides) {
    const auto [key, value] = model::parse_setting(text);
    set(c, key, value);
    given.insert(key);
  }
  if (from) {
    require_same_model(*from, c.model);
    const int64_t topk = c.model.index_topk;
    c.model = *from;
    c.model.index_topk = topk;
  }
  model::validate(c.model);
  if (!from) {
    settle_type(c.model, given);
    c.model.model_type = model::describing_type(c.model);
  }
  validate(c.train, c.model);
  return c;
}

json run_config_to_json(const RunConfig& c) {
  json j = model::config_to_json(c.model);
  json t;
  for_each_train_field(
      c.train, [&](const char* name, const auto& field, const auto&...) { t[name] = model::field_json(field); });
  j["training"] = t;
  return j;
}

RunConfig run_config_from_json(const json& j) {
  json model = j;
  model.erase("training");
  RunConfig c;
  c.model = model::config_from_json(model);
  if (j.contains("training"))
    for (const auto& [key, value] : j["training"].items()) set_train_field(c.train, key, value);
  validate(c.train, c.model);
  return c;
}

std::vector<std::string> setting_names() {
  std::vector<std::string> names = model::model_setting_names();
  TrainConfig c;
  for_each_train_field(c, [&](const char* name, auto&, const auto&...) { names.emplace_back(name); });
  return names;
}

std::vector<std::pair<std::string, std::string>> setting_choices() {
  std::vector<std::pair<std::string, std::string>> choices;
  const auto add = [&]<class T>(const char* name, const T&, const auto&... range) {
    if constexpr (sizeof...(range) > 0) {
      (choices.emplace_back(name, range.text()), ...);
    } else if constexpr (HasNames<T>) {
      std::string words;
      for (const std::string& word : names_of<T>()) words += (words.empty() ? "" : ", ") + word;
      choices.emplace_back(name, words);
    }
  };
  const model::ModelConfig model;
  const TrainConfig train;
  model::for_each_field(model, add);
  for_each_train_field(train, add);
  return choices;
}

}  // namespace birkhoff::train
