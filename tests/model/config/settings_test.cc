// Settings of a run: what they mean, and a clear complaint about each one that cannot be.
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "model/config/json_fields.h"
#include "model/config/notes.h"
#include "model/config/presets.h"
#include "model/config/settings_of_models.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/train_config.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

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

TEST(Settings, QwenIsMeantByItsTypeOrByWhatItHas) {
  json j = gqa();
  EXPECT_TRUE(make(j, {"model_type=qwen2"}).model.qkv_bias);
  EXPECT_TRUE(make(j, {"model_type=qwen3"}).model.qk_norm);
  EXPECT_EQ(make(j, {"model_type=qwen3"}).model.head_dim, 16) << "what hidden_size and the heads give, written down";
  EXPECT_EQ(make(j, {"qkv_bias=true"}).model.model_type, "qwen2");
  EXPECT_EQ(make(j, {"qk_norm=true"}).model.model_type, "qwen3");
  EXPECT_EQ(make(j, {"qk_norm=true", "qkv_bias=true"}).model.model_type, "birkhoff");
  EXPECT_EQ(make(j, {"qk_norm=true", "residual=mhc"}).model.model_type, "birkhoff");
  expect_refused(j, {{{"model_type=llama", "qkv_bias=true"}, {"qkv_bias", "llama", "no place for true"}},
                     {{"model_type=qwen2", "qkv_bias=false"}, {"qkv_bias", "qwen2", "means true"}}});
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

}  // namespace
}  // namespace birkhoff::test
