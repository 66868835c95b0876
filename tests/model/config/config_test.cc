// Settings: what they mean, and a clear complaint about each one that cannot be.
#include "model/config/config.h"

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "model/config/json_fields.h"
#include "model/config/notes.h"
#include "model/config/presets.h"
#include "model/memory_plan.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/train_config.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

// A small mHC model with MLA and grouped experts, as settings.
json base() {
  return {{"residual", "mhc"},
          {"vocab_size", 256},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"kv_lora_rank", 16},
          {"qk_nope_head_dim", 16},
          {"qk_rope_head_dim", 8},
          {"v_head_dim", 16},
          {"intermediate_size", 96},
          {"first_k_dense_replace", 1},
          {"n_routed_experts", 8},
          {"num_experts_per_tok", 2},
          {"n_shared_experts", 1},
          {"moe_intermediate_size", 32},
          {"scoring_func", "sigmoid"},
          {"topk_method", "noaux_tc"},
          {"n_group", 4},
          {"topk_group", 2},
          {"seq_len", 32}};
}
json gqa() {
  return {{"residual", "plain"},      {"vocab_size", 256},        {"hidden_size", 64},      {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"intermediate_size", 96}};
}

train::RunConfig make(const json& from, const std::vector<std::string>& set) {
  return train::make_run_config(from, set);
}

struct Refusal {
  std::vector<std::string> set;
  std::vector<std::string> says;
};

void expect_refused(const json& from, const std::vector<Refusal>& refusals, ExitCode code = ExitCode::input) {
  for (const Refusal& r : refusals) {
    std::string all;
    for (const auto& s : r.set) all += s + " ";
    SCOPED_TRACE(all);
    expect_error([&] { make(from, r.set); }, r.says, code);
  }
}

TEST(Settings, UnknownNamesSuggestTheNearest) {
  expect_refused(base(),
                 {{{"hidden_sise=64"}, {"unknown setting \"hidden_sise\"", "did you mean \"hidden_size\""}},
                  {{"warmup_step=3"}, {"did you mean \"warmup_steps\""}},
                  {{"hc_sinkhorn_iter=3"}, {"did you mean \"hc_sinkhorn_iters\""}},
                  {{"LR=3"}, {"unknown setting \"LR\""}},
                  {{"completely_different_thing=3"}, {"unknown setting \"completely_different_thing\""}},
                  {{"steps"}, {"steps", "key=value"}},
                  {{"=3"}, {"key=value"}},
                  {{""}, {"key=value"}}},
                 ExitCode::usage);
  json file = base();
  file["num_layers"] = 3;
  expect_error([&] { make(file, {}); }, {"num_layers"}, ExitCode::usage);
  json nested = base();
  nested["training"] = {{"stepz", 3}};
  expect_error([&] { make(nested, {}); }, {"stepz", "did you mean \"steps\""}, ExitCode::usage);
  expect_error([&] { make(json::array(), {}); }, {"not a JSON object"});
}

TEST(Settings, UnknownWordsSuggestTheNearest) {
  expect_refused(base(), {{{"residual=mHC"}, {"residual", "\"mHC\"", "did you mean \"mhc\"", "one of plain, hc, mhc"}},
                          {{"hc_convention=paperr"}, {"did you mean \"paper\""}},
                          {{"hc_pre=learn"}, {"did you mean \"learned\""}},
                          {{"hc_post=off"}, {"hc_post", "learned, fixed"}},
                          {{"hc_res=x"}, {"hc_res"}},
                          {{"hc_res_form=sinkhorm"}, {"did you mean \"sinkhorn\"", "one of sinkhorn, lite, kron"}},
                          {{"hc_head=mean"}, {"hc_head", "learned, sum"}},
                          {{"hc_init_pre=zeros"}, {"did you mean \"zero\""}},
                          {{"scoring_func=softmaxx"}, {"did you mean \"softmax\""}},
                          {{"topk_method=noaux_tcc"}, {"did you mean \"noaux_tc\""}},
                          {{"dtype=bf32"}, {"did you mean \"bf16\""}},
                          {{"recompute=layers"}, {"did you mean \"layer\""}},
                          {{"optimizer=adam"}, {"did you mean \"adamw\""}},
                          {{"schedule=cosin"}, {"did you mean \"cosine\""}},
                          {{"model_type=birkhof"}, {"did you mean \"birkhoff\""}}});
}

TEST(Settings, WrongTypes) {
  expect_refused(
      base(), {{{"steps=abc"}, {"steps", "whole number", "abc"}},
               {{"steps=1.5"}, {"steps", "whole number", "1.5"}},
               {{"steps=1e300"}, {"steps", "whole number"}},
               {{"steps=true"}, {"steps", "whole number", "true"}},
               {{"steps="}, {"steps", "whole number"}},
               {{"lr=fast"}, {"lr", "a number", "fast"}},
               {{"lr=nan"}, {"lr", "a number"}},
               {{"lr=1e999"}, {"lr", "a number"}},
               {{"keep_best=1"}, {"keep_best", "true or false", "1"}},
               {{"residual=3"}, {"residual", "a word", "3"}},
               {{"rope_scaling=yarn"}, {"rope_scaling", "object", "yarn"}},
               {{"rope_scaling={\"type\":3}"}, {"rope_scaling.type", "a word", "3"}},
               {{"rope_scaling={\"type\":\"yarm\"}"}, {"rope_scaling.type", "did you mean \"yarn\""}},
               {{"rope_scaling={\"type\":\"linear\",\"factor\":\"x\"}"}, {"rope_scaling.factor", "a number"}},
               {{"rope_scaling={\"type\":\"linear\",\"factor\":0}"}, {"rope_scaling.factor", "(0, 1000000]", "is 0"}},
               {{"rope_scaling={\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0.5}"},
                {"original_max_position_embeddings", "whole number"}}});
  EXPECT_EQ(make(base(), {"steps=1e3"}).train.steps, 1000);
  EXPECT_EQ(make(base(), {"steps=20.0"}).train.steps, 20);
}

TEST(Settings, Contradictions) {
  expect_refused(
      base(),
      {{{"num_experts_per_tok=9"}, {"num_experts_per_tok", "9", "n_routed_experts 8"}},
       {{"num_experts_per_tok=5"}, {"num_experts_per_tok", "5", "4 experts", "topk_group"}},
       {{"num_experts_per_tok=0"}, {"num_experts_per_tok", "positive"}},
       {{"n_group=3"}, {"n_group", "3", "n_routed_experts 8"}},
       {{"topk_group=5"}, {"topk_group", "5", "n_group 4"}},
       {{"topk_group=0"}, {"topk_group", "positive"}},
       {{"n_group=0"}, {"n_group", "positive"}},
       {{"qk_rope_head_dim=7"}, {"qk_rope_head_dim", "even", "7"}},
       {{"qk_rope_head_dim=0"}, {"qk_rope_head_dim", "positive"}},
       {{"v_head_dim=0"}, {"v_head_dim", "positive"}},
       {{"q_lora_rank=-1"}, {"q_lora_rank: must be in 0 .. 2^24, is -1"}},
       {{"kv_lora_rank=-4"}, {"kv_lora_rank: must be in 0 .. 2^24, is -4"}},
       {{"n_shared_experts=-1"}, {"n_shared_experts: must be in 0 .. 1024, is -1"}},
       {{"n_routed_experts=-8"}, {"n_routed_experts: must be in 0 .. 1024, is -8"}},
       {{"n_routed_experts=2048"}, {"n_routed_experts", "2048", "1024"}},
       {{"moe_layer_freq=0"}, {"moe_layer_freq: must be in 1 .. 2^24, is 0"}},
       {{"first_k_dense_replace=-1"}, {"first_k_dense_replace: must be in 0 .. 2^24, is -1"}},
       {{"moe_intermediate_size=0"}, {"moe_intermediate_size", "positive"}},
       {{"intermediate_size=0"}, {"intermediate_size", "positive"}},
       {{"routed_scaling_factor=0"}, {"routed_scaling_factor: must be in (0, 1000000], is 0"}},
       {{"hidden_size=0"}, {"hidden_size: must be in 1 .. 2^24, is 0"}},
       {{"vocab_size=-5"}, {"vocab_size: must be in 1 .. 2^24, is -5"}},
       {{"num_hidden_layers=0"}, {"num_hidden_layers: must be in 1 .. 10000, is 0"}},
       {{"num_hidden_layers=100000000"}, {"num_hidden_layers", "100000000", "10000"}},
       {{"hidden_size=4000000000"}, {"hidden_size", "4000000000"}},
       {{"num_attention_heads=0"}, {"num_attention_heads: must be in 1 .. 2^24, is 0"}},
       {{"hc_mult=0"}, {"hc_mult: must be in 1 .. 8, is 0"}},
       {{"hc_mult=9"}, {"hc_mult: must be in 1 .. 8, is 9"}},
       {{"hc_sinkhorn_iters=0"}, {"hc_sinkhorn_iters", "0"}},
       {{"hc_res_form=lite", "hc_mult=6"}, {"hc_mult: 6 streams", "120 permutations", "hc_res_form lite", "at most 5"}},
       {{"hc_res_form=kron", "hc_mult=6"}, {"hc_mult: 6 streams", "power of two", "hc_res_form kron", "1, 2, 4 or 8"}},
       {{"hc_res_form=lite", "hc_sinkhorn_iters=5"},
        {"hc_sinkhorn_iters: 5", "lite does not iterate", "leave hc_sinkhorn_iters out"}},
       {{"hc_eps=-1e-6"}, {"hc_eps: must be in 0 .. 1, is -1e-06"}},
       {{"rms_norm_eps=0"}, {"rms_norm_eps: must be in (0, 1], is 0"}},
       {{"rms_norm_eps=1e38"}, {"rms_norm_eps: must be in (0, 1], is 1e+38"}},
       {{"initializer_range=1e30"}, {"initializer_range: must be in 0 .. 10, is 1e+30"}},
       {{"compress_ratios=[0,-4]"}, {"compress_ratios: must be in 0 .. 2^24, is -4"}},
       {{"rope_theta=1"}, {"rope_theta: must be in (1, 1e+12], is 1"}},
       {{"initializer_range=-1"}, {"initializer_range: must be in 0 .. 10, is -1"}},
       {{"max_position_embeddings=0"}, {"max_position_embeddings: must be in 1 .. 2^24, is 0"}},
       {{"model_type=deepseek_v3"}, {"deepseek_v3", "residual", "mhc"}},
       {{"model_type=llama", "residual=plain"}, {"llama", "kv_lora_rank"}}});
  expect_refused(gqa(), {{{"num_attention_heads=5"}, {"num_attention_heads", "5", "hidden_size 64"}},
                         {{"num_key_value_heads=3"}, {"num_key_value_heads", "3", "num_attention_heads 4"}},
                         {{"num_key_value_heads=-1"}, {"num_key_value_heads: must be in 0 .. 2^24, is -1"}},
                         {{"head_dim=15"}, {"head_dim", "even", "15"}},
                         {{"head_dim=-2"}, {"head_dim: must be in 0 .. 2^24, is -2"}}});
}

TEST(Settings, TrainingContradictions) {
  expect_refused(base(),
                 {{{"steps=-1"}, {"steps: must be in 0 .. 2^40, is -1"}},
                  {{"seq_len=0"}, {"seq_len: must be in 1 .. 2^24, is 0"}},
                  {{"seq_len=5000"}, {"seq_len", "5000", "max_position_embeddings 4096"}},
                  {{"batch_size=0"}, {"batch_size: must be in 1 .. 2^24, is 0"}},
                  {{"batch_size=100000000000"}, {"batch_size", "100000000000"}},
                  {{"batch_size=10000000", "seq_len=4096"}, {"10000000 * 4096", "grad_accum"}},
                  {{"grad_accum=3"}, {"grad_accum", "3", "batch_size 8"}},
                  {{"grad_accum=0"}, {"grad_accum: must be in 1 .. 2^24, is 0"}},
                  {{"batch_ramp=-1"}, {"batch_ramp"}},
                  {{"warmup_steps=-1"}, {"warmup_steps"}},
                  {{"lr=-1"}, {"lr: must be in 0 .. 1000000, is -1"}},
                  {{"beta1=1"}, {"beta1", "[0, 1)"}},
                  {{"beta2=-0.1"}, {"beta2", "[0, 1)"}},
                  {{"momentum=1"}, {"momentum", "[0, 1)"}},
                  {{"eps=0"}, {"eps: must be in (0, 1000000], is 0"}},
                  {{"weight_decay=-0.1"}, {"weight_decay: must be in 0 .. 10000, is -0.1"}},
                  {{"keep=0"}, {"keep: must be in 1 .. 2^24, is 0"}},
                  {{"checkpoint_every=-1"}, {"checkpoint_every"}},
                  {{"eval_every=-1"}, {"eval_every"}},
                  {{"gain_every=-1"}, {"gain_every"}},
                  {{"seed=-1"}, {"seed"}},
                  {{"aux_devices=3"}, {"aux_devices", "3", "n_routed_experts 8"}},
                  {{"aux_devices=0"}, {"aux_devices: must be in 1 .. 1024, is 0"}},
                  {{"lr=0x10"}, {"lr", "a number", "0x10"}},
                  {{"lr=+inf"}, {"lr", "a number", "inf"}},
                  {{"aux_expert=-1"}, {"aux_expert: must be in 0 .. 10000, is -1"}},
                  {{"z_loss=1e30"}, {"z_loss: must be in 0 .. 10000, is 1e+30"}},
                  {{"weight_decay=1e30"}, {"weight_decay: must be in 0 .. 10000, is 1e+30"}},
                  {{"bias_update_speed=0.001", "topk_method=greedy"}, {"bias_update_speed", "greedy", "noaux_tc"}}});
}

TEST(Settings, PrecedenceAndDefaults) {
  const train::RunConfig c = make(base(), {"hidden_size=32", "lr=0.5", "hidden_size=48", "aux_sequence=1e-4"});
  EXPECT_EQ(c.model.hidden_size, 48);
  EXPECT_EQ(c.train.lr, 0.5);
  EXPECT_EQ(c.train.final_lr(), 0.05);
  EXPECT_EQ(c.train.aux_sequence, 1e-4);
  EXPECT_EQ(c.train.seq_len, 32);
  json nested = base();
  nested["training"] = {{"steps", 7}};
  EXPECT_EQ(make(nested, {}).train.steps, 7);
  EXPECT_EQ(make(gqa(), {}).model.head_dim, 16);
  EXPECT_EQ(make(gqa(), {"num_key_value_heads=0"}).model.num_key_value_heads, 4);
}

TEST(Settings, EchoIsComplete) {
  const train::RunConfig c =
      make(base(), {"lr=0.25", "hc_convention=paper",
                    "rope_scaling={\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":64}"});
  const json echoed = train::run_config_to_json(c);
  for (const std::string& name : train::setting_names())
    EXPECT_TRUE(echoed.contains(name) || echoed["training"].contains(name)) << name;
  EXPECT_EQ(train::run_config_to_json(train::run_config_from_json(echoed)), echoed);
  json again = echoed;  // a run's own config.json makes the same run
  EXPECT_EQ(train::run_config_to_json(make(again, {})), echoed);
}

TEST(Settings, ListsAndFractionsFromACommandLine) {
  const train::RunConfig c =
      make(base(), {"aux_expert=.25", "trainable=[0]", "lora.rank=2", "lora.targets=[\"o_proj\"]"});
  EXPECT_EQ(c.train.aux_expert, 0.25);
  EXPECT_EQ(c.train.trainable, "[0]");
  EXPECT_EQ(c.train.lora_targets, "o_proj");
  EXPECT_EQ(make(json::parse(model::find_preset("v4-flash").json), {"num_hidden_layers=2", "compress_ratios=[0,4]"})
                .model.compress_ratios,
            (std::vector<int64_t>{0, 4}));
}

TEST(Settings, AnExplicitTypeLosesNothing) {
  json v3 = base();
  v3.update({{"model_type", "deepseek_v3"}, {"residual", "plain"}});
  const auto reopened = [](const model::ModelConfig& c) {
    return model::config_to_json(model::config_from_json(model::config_to_json(c)));
  };
  for (const char* type : {"deepseek_v3", "deepseek_v2"}) {
    v3["model_type"] = type;
    v3["topk_method"] = std::string(type) == "deepseek_v3" ? "noaux_tc" : "group_limited_greedy";
    v3["scoring_func"] = std::string(type) == "deepseek_v3" ? "sigmoid" : "softmax";
    const train::RunConfig c = make(v3, {});
    EXPECT_EQ(c.model.model_type, type);
    EXPECT_EQ(reopened(c.model), model::config_to_json(c.model));
  }
  v3["topk_method"] = "noaux_tc", v3["scoring_func"] = "sigmoid";
  expect_refused(v3, {{{"model_type=deepseek_v3", "swiglu_limit=0.01"},
                       {"swiglu_limit: model_type deepseek_v3 has no place for 0.01, it means 0"}},
                      {{"model_type=deepseek", "kv_lora_rank=0", "scoring_func=softmax", "topk_method=greedy",
                        "routed_scaling_factor=3"},
                       {"routed_scaling_factor", "model_type deepseek"}}});
}

TEST(Settings, TheConfigOfAModelDirectoryServesAsOne) {
  json released = gqa();
  released.erase("residual");
  released.update({{"model_type", "llama"},
                   {"architectures", {"LlamaForCausalLM"}},
                   {"torch_dtype", "bfloat16"},
                   {"bos_token_id", 1},
                   {"pretraining_tp", 1},
                   {"training", {{"steps", 7}}}});
  const train::RunConfig c = make(released, {"lr=0.5", "hidden_size=32"});
  EXPECT_EQ(c.model.model_type, "llama");
  EXPECT_EQ(c.model.hidden_size, 32);
  EXPECT_EQ(c.train.steps, 7);
  EXPECT_EQ(c.train.lr, 0.5);
  EXPECT_EQ(model::unknown_key_names(c.model), "pretraining_tp");
  model::ModelConfig named = c.model;
  named.unknown_keys = json{{std::string(1 << 20, 'x'), 1}, {"y", 2}}.dump();
  EXPECT_EQ(model::unknown_key_names(named), std::string(100, 'x') + "..., y");
  EXPECT_EQ(train::run_config_to_json(make(train::run_config_to_json(c), {})), train::run_config_to_json(c))
      << "a run's own config.json makes the same run";
}

TEST(Presets, AllAreValidAndFitTheirNames) {
  for (const model::Preset& p : model::presets()) {
    SCOPED_TRACE(p.name);
    const train::RunConfig c = make(json::parse(p.json), {});
    EXPECT_GT(c.model.hidden_size, 0);
  }
  expect_error([] { model::find_preset("tinny"); }, {"unknown preset \"tinny\"", "did you mean \"tiny\"", "demo"},
               ExitCode::usage);
  expect_error([] { model::find_preset(""); }, {"unknown preset"}, ExitCode::usage);
}

TEST(ConfigJson, ReleasedTypes) {
  json v3 = gqa();
  v3.update({{"model_type", "deepseek_v3"},
             {"kv_lora_rank", 16},
             {"q_lora_rank", nullptr},
             {"qk_nope_head_dim", 16},
             {"qk_rope_head_dim", 8},
             {"v_head_dim", 16},
             {"n_routed_experts", 4},
             {"num_experts_per_tok", 2},
             {"moe_intermediate_size", 8},
             {"head_dim", 8},
             {"architectures", {"DeepseekV3ForCausalLM"}}});
  v3.erase("residual");
  const model::ModelConfig c = model::config_from_json(v3);
  EXPECT_EQ(c.q_lora_rank, 0);
  EXPECT_STREQ(name_of(c.scoring_func), "sigmoid");
  EXPECT_STREQ(name_of(c.topk_method), "noaux_tc");
  EXPECT_TRUE(c.norm_topk_prob);
  EXPECT_STREQ(name_of(c.residual), "plain");
  const json back = model::config_to_json(c);
  EXPECT_EQ(back["architectures"], v3["architectures"]) << "unknown keys are kept";
  EXPECT_FALSE(back.contains("residual")) << "released types carry no setting of ours";
  EXPECT_TRUE(back["q_lora_rank"].is_null());

  json nulls = v3;
  for (const char* key :
       {"rope_theta", "rms_norm_eps", "routed_scaling_factor", "topk_method", "tie_word_embeddings", "rope_scaling"})
    nulls[key] = nullptr;
  EXPECT_EQ(model::config_to_json(model::config_from_json(nulls)), back) << "null is the type's own value";

  json unknown = v3;
  unknown["model_type"] = "deepseek_v33";
  expect_error([&] { model::config_from_json(unknown); },
               {"model_type", "deepseek_v33", "did you mean \"deepseek_v3\""});
  unknown.erase("model_type");
  expect_error([&] { model::config_from_json(unknown); }, {"no model_type"});
  expect_error([&] { model::config_from_json(json::array()); }, {"not a JSON object"});
  json bad = v3;
  bad["hidden_size"] = "64";
  expect_error([&] { model::config_from_json(bad); }, {"hidden_size", "whole number", "\"64\""});
}

json mixtral() {
  json j = gqa();
  j.update({{"model_type", "mixtral"}, {"num_local_experts", 4}, {"num_experts_per_tok", 1}});
  j.erase("residual");
  return j;
}
json v32() {
  json j = base();
  j.update({{"model_type", "deepseek_v32"},
            {"q_lora_rank", 16},
            {"index_n_heads", 2},
            {"index_head_dim", 16},
            {"index_topk", 4}});
  for (const char* ours : {"residual", "seq_len"}) j.erase(ours);
  return j;
}

TEST(ConfigJson, MixtralAlwaysNormalises) {
  EXPECT_TRUE(model::config_from_json(mixtral()).moe_spec(0).rule.normalise);
  model::ModelConfig ours = model::config_from_json(mixtral());
  ours.model_type = "birkhoff";
  EXPECT_FALSE(ours.moe_spec(0).rule.normalise) << "the softmax rule with one expert does not (models.md D.5)";
  EXPECT_NE(model::describing_type(ours), "mixtral");
  ours.num_experts_per_tok = 2;
  EXPECT_EQ(model::describing_type(ours), "mixtral");
}

TEST(ConfigJson, KindsOfLayersByName) {
  json j = v32();
  j["mlp_layer_types"] = {"sparse", "sparse"};
  EXPECT_EQ(model::config_from_json(j).first_k_dense_replace, 0) << "whatever first_k_dense_replace says";
  j["mlp_layer_types"] = {"dense", "sparse"};
  EXPECT_EQ(model::config_from_json(j).first_k_dense_replace, 1);
  j["mlp_layer_types"] = {"sparse", "dense"};
  expect_error([&] { model::config_from_json(j); }, {"mlp_layer_types", "dense after sparse"});
  j["mlp_layer_types"] = {"dense"};
  expect_error([&] { model::config_from_json(j); }, {"mlp_layer_types", "1", "num_hidden_layers", "2"});
  j["mlp_layer_types"] = {"dence", "sparse"};
  expect_error([&] { model::config_from_json(j); }, {"mlp_layer_types", "dence", "dense"});
}

TEST(ConfigJson, V4SaysSomeThingsInVain) {
  json v4 = model::config_to_json(small_v4_config());
  v4["norm_topk_prob"] = false;
  v4["num_hash_layers"] = 7;
  v4["num_nextn_predict_layers"] = 1;
  v4["rope_scaling"]["attention_factor"] = 1.0;
  const model::ModelConfig c = model::config_from_json(v4);
  EXPECT_TRUE(c.moe_spec(1).rule.normalise);
  EXPECT_GT(c.moe_spec(2).hash_vocab, 0);
  EXPECT_EQ(c.moe_spec(3).hash_vocab, 0) << "a prediction module chooses by its bias";
  EXPECT_TRUE(c.moe_spec(3).rule.bias);
  v4["rope_scaling"]["attention_factor"] = 1.3;
  expect_error([&] { model::config_from_json(v4); }, {"attention_factor", "1.3", "only 1"});
  json compress = v4["rope_scaling"];
  v4.erase("rope_scaling");
  v4["rope_parameters"] = {{"main", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}, {"compress", compress}};
  expect_error([&] { model::config_from_json(v4); }, {"attention_factor", "1.3", "only 1"});
  v4["rope_parameters"]["compress"].erase("attention_factor");
  EXPECT_EQ(model::config_from_json(v4).rope_scaling.factor, 4);
  v4["rope_parameters"]["main"]["rope_type"] = "linear";
  expect_error([&] { model::config_from_json(v4); }, {"rope_parameters.main", "linear"});
}

TEST(ConfigJson, RopeScalingInItsSpellings) {
  const auto rope = [](const json& value, const char* key = "rope_scaling") {
    json j = gqa();
    j["model_type"] = "llama";
    j[key] = value;
    return model::config_from_json(j);
  };
  EXPECT_EQ(rope({{"type", "linear"}, {"factor", 4.0}}).rope_scaling.kind, ops::RopeScaling::Kind::linear);
  EXPECT_EQ(rope({{"rope_type", "linear"}, {"factor", 4}}).rope_scaling.factor, 4);
  EXPECT_EQ(rope({{"rope_type", "default"}, {"rope_theta", 5000.0}}, "rope_parameters").rope_theta, 5000);
  EXPECT_EQ(rope(nullptr).rope_scaling.kind, ops::RopeScaling::Kind::none);
  json outer = gqa();
  outer.update({{"model_type", "llama"},
                {"rope_theta", 7000.0},
                {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5000.0}}}});
  EXPECT_EQ(model::config_from_json(outer).rope_theta, 5000) << "rope_parameters counts";
  outer["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  EXPECT_EQ(model::config_from_json(outer).rope_scaling.factor, 4) << "not beside rope_scaling";
  EXPECT_EQ(model::config_from_json(outer).rope_theta, 7000);
  json both = gqa();
  both.update({{"model_type", "llama"},
               {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4}}},
               {"rope_scaling", nullptr}});
  EXPECT_EQ(model::config_from_json(both).rope_scaling.factor, 4) << "a null beside the other spelling says nothing";
  expect_error([&] { rope({{"type", "linear"}}); }, {"rope_scaling.factor", "linear", "has none"});
  expect_error([&] { rope({{"type", "yarn"}, {"original_max_position_embeddings", 64}}); }, {"factor", "has none"});
  expect_error([&] { rope({{"type", "yarn"}, {"factor", 4}}); }, {"original_max_position_embeddings", "has none"});
  expect_error([&] { rope({{"type", "linear"}, {"factor", 1e30}}); }, {"factor", "(0, 1000000]", "1e+30"});
  const json plain_yarn{{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 64}};
  json magnitude = plain_yarn;
  magnitude["attention_factor"] = 0.1 * std::log(4.0) + 1;
  EXPECT_EQ(rope(magnitude).rope_scaling.factor, 4);
  magnitude["attention_factor"] = 3;
  expect_error([&] { rope(magnitude); }, {"attention_factor", "3.0", "1.138"});
  expect_error(
      [&] {
        rope({{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 64}, {"truncate", false}});
      },
      {"truncate"});
  const auto yarn = rope({{"type", "yarn"},
                          {"factor", 40},
                          {"original_max_position_embeddings", 4096},
                          {"mscale", 0.707},
                          {"mscale_all_dim", 0.707}})
                        .rope_scaling;
  EXPECT_EQ(yarn.kind, ops::RopeScaling::Kind::yarn);
  EXPECT_EQ(yarn.mscale_all_dim, 0.707);
  EXPECT_EQ(yarn.original_max_position, 4096);
}

// docs/settings.md states what every setting may be, in the words of the tables.
TEST(Settings, ThePageStatesWhatTheTablesAllow) {
  std::ifstream page(committed_dir() + "/../../docs/settings.md");
  std::map<std::string, std::string> allowed;
  for (std::string line; std::getline(page, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    std::vector<std::string> cells;
    std::istringstream row(line.substr(1));
    for (std::string cell; std::getline(row, cell, '|');) cells.push_back(cell);
    if (cells.size() < 3) continue;
    std::istringstream keys(cells[0]);
    std::erase(cells[2], '`');
    for (std::string key; std::getline(keys, key, '`');) allowed[key] += cells[2];
  }
  const auto choices = train::setting_choices();
  EXPECT_GT(choices.size(), 80u);
  for (const auto& [key, text] : choices)
    EXPECT_NE(allowed[key].find(text), std::string::npos) << key << ": " << text << ", the page has" << allowed[key];
}

template <class E>
void expect_words_and_back() {
  std::set<std::string> words;
  for (const auto& [name, value] : NamesOf<E>::table) {
    EXPECT_TRUE(words.insert(name).second) << name;
    EXPECT_STREQ(name_of(value), name) << "a value has one name";
    E read{};
    model::assign_field("key", json(name), read);
    EXPECT_EQ(read, value) << name;
    EXPECT_EQ(json(model::field_json(read)), json(name));
  }
}

TEST(Settings, WordsAndBack) {
  expect_words_and_back<ops::ResidualKind>();
  expect_words_and_back<ops::HcConvention>();
  expect_words_and_back<ops::ResForm>();
  expect_words_and_back<ops::Scoring>();
  expect_words_and_back<ops::RopeScaling::Kind>();
  expect_words_and_back<model::TopkMethod>();
  expect_words_and_back<model::HcMap>();
  expect_words_and_back<model::HcHead>();
  expect_words_and_back<model::HcInitPre>();
  expect_words_and_back<DType>();
  expect_words_and_back<model::Recompute>();
  expect_words_and_back<train::Optimizer>();
  expect_words_and_back<optim::Schedule::Kind>();
  expect_words_and_back<train::IndexerStage>();
  EXPECT_EQ(model::named<ops::Scoring>("scoring_func", "sigmoid"), ops::Scoring::sigmoid);
  EXPECT_EQ(model::named<ops::ResForm>("hc_res_form", "kron"), ops::ResForm::kron);
  EXPECT_EQ(model::named<optim::Schedule::Kind>("schedule", "wsd"), optim::Schedule::Kind::wsd);
  EXPECT_EQ(model::named<DType>("dtype", "fp32"), DType::f32);
}

TEST(ConfigJson, NotesOfWhatIsNotHonoured) {
  const auto notes = [](const json& more) {
    json j = gqa();
    j.update({{"model_type", "llama"}, {"max_position_embeddings", 128}});
    j.update(more);
    std::string all;
    for (const std::string& note : model::reading_notes(model::config_from_json(j))) all += note + "\n";
    return all;
  };
  const std::pair<const char*, json> said[] = {{"partial_rotary_factor", 0.5}, {"final_logit_softcapping", 30.0},
                                               {"sliding_window", 64},         {"attn_logit_softcapping", 50},
                                               {"residual_multiplier", 0.2},   {"layer_types", {"sliding_attention"}}};
  for (const auto& [key, value] : said) {
    const std::string note = notes({{key, value}});
    EXPECT_NE(note.find(std::string(key) + " " + value.dump()), std::string::npos) << key << ": " << note;
  }
  EXPECT_EQ(notes({{"partial_rotary_factor", 1.0},
                   {"final_logit_softcapping", nullptr},
                   {"sliding_window", 128},
                   {"residual_multiplier", 1},
                   {"layer_types", {"full_attention"}},
                   {"pretraining_tp", 1}}),
            "");
  EXPECT_EQ(notes({{"sliding_window", 64}, {"use_sliding_window", false}}), "");
}

TEST(ConfigJson, RatiosThatTransformersDoesNotOpen) {
  model::ModelConfig c = small_v4_config();
  c.compress_ratios = {0, 4, 128, 0};
  EXPECT_TRUE(model::writing_notes(c).empty());
  c.compress_ratios = {0, 4, 16, 0};
  ASSERT_EQ(model::writing_notes(c).size(), 1u);
  EXPECT_NE(model::writing_notes(c)[0].find("16"), std::string::npos);
}

TEST(MemoryPlan, MoreExpertsThanAnyoneListsAreRefused) {
  const auto planned = [](const char* layers) {
    const train::RunConfig c = make(base(), {"n_routed_experts=1024", layers});
    model::plan_training(c.model, DType::bf16, 1, 16, model::Recompute::none, 1);
  };
  expect_error([&] { planned("num_hidden_layers=10000"); },
               {"10000 layers of n_routed_experts 1024", "at most 262144", "lower num_hidden_layers"});
  planned("num_hidden_layers=3");
}

TEST(MemoryPlan, WhatDoesNotFitIsRefusedWithNumbersAndAHint) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer leaves no address space for a plan of a tebibyte";
#endif
  train::RunConfig c =
      make(base(), {"hidden_size=16384", "num_hidden_layers=500", "intermediate_size=65536", "seq_len=1024"});
  const auto plan = model::plan_training(c.model, DType::bf16, 8, 1024, model::Recompute::none, 2);
  EXPECT_GT(plan.total(), size_t{1} << 40);
  expect_error([&] { model::require_fits(plan); },
               {"the run needs", "this machine has", "gradients", "total", "smaller"});
  EXPECT_THROW(model::plan_training(c.model, DType::bf16, int64_t{1} << 20, 2047, model::Recompute::none, 2), Error)
      << "beyond what can be planned";
}

// Tokens are planned for, not held: 2^24 of them would be 64 MiB for each list.
TEST(MemoryPlan, PlanningCostsNoMemory) {
  train::RunConfig c = make(base(), {});
  const auto resident = [] {
    std::ifstream in("/proc/self/statm");
    long pages = 0;
    in >> pages >> pages;
    return pages * 4096L;
  };
  const long before = resident();
  for (auto policy : {model::Recompute::none, model::Recompute::site, model::Recompute::layer})
    EXPECT_GT(model::plan_training(c.model, DType::f32, int64_t{1} << 19, 32, policy, 2).kept, size_t{1} << 30);
  EXPECT_LT(resident() - before, 8L << 20);
}

TEST(MemoryPlan, RecomputingNeedsLess) {
  const train::RunConfig c = make(base(), {});
  const auto kept = [&](model::Recompute p) { return model::plan_training(c.model, DType::bf16, 8, 256, p, 1).kept; };
  EXPECT_LT(kept(model::Recompute::site), kept(model::Recompute::none));
  EXPECT_LT(kept(model::Recompute::layer), kept(model::Recompute::site));
}

}  // namespace
}  // namespace birkhoff::test
