// The config.json of released models: what its keys mean for each type, in all their spellings.
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config/config.h"
#include "model/config/notes.h"
#include "model/config/settings_of_models.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

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
  EXPECT_EQ(rope(magnitude).rope_scaling.attention_factor, 0) << "what follows anyway";
  magnitude["attention_factor"] = 3;
  EXPECT_EQ(ops::rope_gain(rope(magnitude).rope_scaling), 3);
  magnitude["attention_factor"] = 0;
  expect_error([&] { rope(magnitude); }, {"attention_factor", "(0, 1000]"});
  json latent = v32();
  latent["rope_scaling"] = plain_yarn;
  latent["rope_scaling"]["attention_factor"] = 3;
  expect_error([&] { model::config_from_json(latent); }, {"attention_factor", "3.0", "mscale"});
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

json llama3_scaling() {
  return {{"rope_type", "llama3"},
          {"factor", 8.0},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

json of_type(const char* type) {
  json j = gqa();
  j.erase("residual");
  j["model_type"] = type;
  return j;
}

TEST(ConfigJson, Llama3Scaling) {
  const auto read = [](const json& scaling, const char* key = "rope_scaling") {
    json j = of_type("llama");
    j[key] = scaling;
    return model::config_from_json(j);
  };
  const model::ModelConfig c = read(llama3_scaling());
  EXPECT_EQ(c.rope_scaling.kind, ops::RopeScaling::Kind::llama3);
  EXPECT_EQ(c.rope_scaling.low_freq_factor, 1);
  EXPECT_EQ(c.rope_scaling.high_freq_factor, 4);
  EXPECT_EQ(c.rope_scaling.original_max_position, 8192);
  EXPECT_EQ(model::config_to_json(c)["rope_scaling"], llama3_scaling());
  json nested = llama3_scaling();
  nested["rope_theta"] = 500000.0;
  EXPECT_EQ(read(nested, "rope_parameters").rope_theta, 500000);
  EXPECT_EQ(read(nested, "rope_parameters").rope_scaling.factor, 8);
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    json part = llama3_scaling();
    part.erase(key);
    expect_error([&] { read(part); }, {key, "llama3", "has none"});
  }
  json turned = llama3_scaling();
  turned["low_freq_factor"] = 4;
  expect_error([&] { read(turned); }, {"low_freq_factor", "not less than", "high_freq_factor"});
}

TEST(ConfigJson, QwenBringsBiasesOrNorms) {
  const model::ModelConfig two = model::config_from_json(of_type("qwen2"));
  EXPECT_TRUE(two.qkv_bias && !two.qk_norm);
  json j = of_type("qwen3");
  j.erase("head_dim");
  const model::ModelConfig three = model::config_from_json(j);
  EXPECT_TRUE(!three.qkv_bias && three.qk_norm);
  EXPECT_EQ(three.head_dim, 128) << "transformers' default, whatever hidden_size / heads is";
  for (const model::ModelConfig& c : {two, three}) {
    const json written = model::config_to_json(c);
    EXPECT_FALSE(written.contains("qkv_bias") || written.contains("qk_norm")) << "settings of ours";
    EXPECT_EQ(written["architectures"], json::array({c.qkv_bias ? "Qwen2ForCausalLM" : "Qwen3ForCausalLM"}));
    EXPECT_EQ(model::config_to_json(model::config_from_json(written)), written);
    model::ModelConfig ours = c;
    ours.model_type = "birkhoff";
    EXPECT_EQ(model::describing_type(ours), c.model_type);
    ours.qkv_bias = ours.qk_norm = true;
    EXPECT_EQ(model::describing_type(ours), "birkhoff") << "no released type has both";
  }
  json biased = of_type("qwen3");
  biased["attention_bias"] = true;
  expect_error([&] { model::config_from_json(biased); }, {"attention_bias", "true", "false"});
  for (const char* key : {"qkv_bias", "qk_norm"}) {
    json latent = base();
    latent.update({{"model_type", "birkhoff"}, {key, true}});
    expect_error([&] { model::config_from_json(latent); }, {key, "kv_lora_rank"});
  }
}

TEST(ConfigJson, QwenSlidesNowhere) {
  json j = of_type("qwen2");
  j.update({{"max_position_embeddings", 128}, {"sliding_window", 16}});
  EXPECT_TRUE(model::reading_notes(model::config_from_json(j)).empty()) << "without use_sliding_window none slides";
  j["use_sliding_window"] = false;
  EXPECT_TRUE(model::reading_notes(model::config_from_json(j)).empty());
  EXPECT_EQ(model::config_to_json(model::config_from_json(j))["sliding_window"], 16) << "kept as it was";
  j["use_sliding_window"] = true;
  expect_error([&] { model::config_from_json(j); }, {"use_sliding_window", "16", "only false"});
  j["sliding_window"] = 128;
  EXPECT_EQ(model::config_from_json(j).max_position_embeddings, 128) << "no sequence leaves that window";
  j["sliding_window"] = nullptr;
  EXPECT_TRUE(model::config_from_json(j).qkv_bias);
  j["layer_types"] = {"full_attention", "full_attention"};
  model::ModelConfig c = model::config_from_json(j);
  EXPECT_TRUE(model::reading_notes(c).empty());
  c.latent_attention = model::LatentAttention::absorbed;
  EXPECT_EQ(model::reading_notes(c).size(), 1u) << "it has none";
  j["layer_types"] = {"full_attention", "sliding_attention"};
  expect_error([&] { model::config_from_json(j); }, {"layer_types", "full_attention"});
  j.erase("layer_types");
  j["use_mrope"] = true;
  expect_error([&] { model::config_from_json(j); }, {"use_mrope"});
}

// R1-0528-Qwen3-8B: a factor of the gain that follows, which programs read in three ways (models.md A.4).
TEST(ConfigJson, AttnFactorIsAFactorOfTheGain) {
  json j = of_type("qwen3");
  j["rope_scaling"] = {{"rope_type", "yarn"},
                       {"factor", 4.0},
                       {"original_max_position_embeddings", 32768},
                       {"attn_factor", 0.8782488562869419}};
  const model::ModelConfig c = model::config_from_json(j);
  EXPECT_NEAR(ops::rope_gain(c.rope_scaling), 1, 1e-15);
  const std::vector<std::string> notes = model::reading_notes(c);
  ASSERT_EQ(notes.size(), 1u);
  for (const char* part : {"attn_factor 0.878249", "multiplied by 1;", "skip the key multiply by 1.13863"})
    EXPECT_NE(notes[0].find(part), std::string::npos) << notes[0];
  // Written under the name that all of them read.
  const json written = model::config_to_json(c)["rope_scaling"];
  EXPECT_NEAR(written["attention_factor"].get<double>(), 1, 1e-15);
  EXPECT_FALSE(written.contains("attn_factor") || written.contains("mscale"));
  const model::ModelConfig again = model::config_from_json(model::config_to_json(c));
  EXPECT_EQ(ops::rope_gain(again.rope_scaling), ops::rope_gain(c.rope_scaling));
  EXPECT_TRUE(model::reading_notes(again).empty());
  j["rope_scaling"]["attention_factor"] = 1.0;
  expect_error([&] { model::config_from_json(j); }, {"attention_factor", "attn_factor", "beside each other"});
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

}  // namespace
}  // namespace birkhoff::test
