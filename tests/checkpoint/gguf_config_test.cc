// Metadata of GGUF files as settings of a model.
#include "checkpoint/gguf_config.h"

#include <nlohmann/json.hpp>
#include <tuple>

#include "checkpoint/gguf_files.h"
#include "checkpoint/gguf_rope.h"
#include "checkpoint/model_files.h"
#include "support/gguf_config.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;
using Bytes = GgufBytes;

Bytes llama_metadata() {
  Bytes g;
  g.put("general.architecture", "llama");
  g.put("llama.block_count", 2);
  g.put("llama.context_length", 2048);
  g.put("llama.embedding_length", 32);
  g.put("llama.feed_forward_length", 64);
  g.put("llama.attention.head_count", 4);
  g.put("llama.attention.head_count_kv", 2);
  g.put("llama.attention.layer_norm_rms_epsilon", 1e-5);
  g.add("token_embd.weight", {32, 100}, 0, std::string(100 * 32 * 4, '\0'));
  return g;
}

Bytes deepseek2_metadata() {
  Bytes g;
  g.put("general.architecture", "deepseek2");
  const auto put = [&](const char* name, auto v) { g.put(std::string("deepseek2.") + name, v); };
  put("block_count", 3);
  put("context_length", 2560);
  put("embedding_length", 32);
  put("feed_forward_length", 64);
  put("attention.head_count", 2);
  put("attention.head_count_kv", 1);
  put("attention.layer_norm_rms_epsilon", 1e-6);
  put("attention.kv_lora_rank", 32);
  put("attention.q_lora_rank", 16);
  put("attention.key_length", 48);
  put("attention.value_length", 32);
  put("attention.key_length_mla", 24);
  put("attention.value_length_mla", 20);
  put("rope.dimension_count", 8);
  put("rope.scaling.type", "yarn");
  put("rope.scaling.factor", 40.0);
  put("rope.scaling.original_context_length", 64);
  put("rope.scaling.yarn_log_multiplier", 0.0707);
  put("expert_count", 8);
  put("expert_used_count", 3);
  put("expert_feed_forward_length", 16);
  put("expert_shared_count", 2);
  put("leading_dense_block_count", 1);
  g.add("token_embd.weight", {32, 100}, 1, std::string(100 * 32 * 2, '\0'));
  return g;
}

TEST(GgufConfig, Llama) {
  checkpoint::GgufDescription d;
  Bytes g = llama_metadata();
  json j = config_of(g, &d);
  EXPECT_TRUE(d.interleaved);
  EXPECT_EQ(j["model_type"], "llama");
  EXPECT_EQ(j["vocab_size"], 100);
  EXPECT_EQ(j["num_key_value_heads"], 2);
  EXPECT_EQ(j["rms_norm_eps"], 1e-5);
  EXPECT_EQ(j["rope_theta"], 10000);
  EXPECT_EQ(j["tie_word_embeddings"], true);
  EXPECT_EQ(j["torch_dtype"], "float32");
  EXPECT_TRUE(j["rope_scaling"].is_null());
  g.put("llama.rope.scale_linear", 4.0);  // of old files
  EXPECT_EQ(config_of(g)["rope_scaling"], json({{"type", "linear"}, {"factor", 4.0}}));
  g.put("llama.rope.scaling.type", "none");
  EXPECT_TRUE(config_of(g)["rope_scaling"].is_null());
  g.put("llama.attention.key_length", 16);
  g.put("llama.attention.value_length", 16);
  g.put("llama.rope.dimension_count", 16);
  g.put("tokenizer.ggml.bos_token_id", 1);
  g.put("tokenizer.ggml.eos_token_id", 2);
  g.put("tokenizer.ggml.eot_token_id", 7);
  j = config_of(g);
  EXPECT_EQ(j["head_dim"], 16);
  EXPECT_EQ(j["bos_token_id"], 1);
  EXPECT_EQ(j["eos_token_id"], json({2, 7}));
  g.put("llama.expert_count", 8);
  g.put("llama.expert_used_count", 2);
  j = config_of(g);
  EXPECT_EQ(j["model_type"], "mixtral");
  EXPECT_EQ(j["num_local_experts"], 8);
  EXPECT_EQ(model::config_from_json(j).moe_intermediate_size, 64);
}

TEST(GgufConfig, LatentAttention) {
  checkpoint::GgufDescription d;
  Bytes g = deepseek2_metadata();
  json j = config_of(g, &d);
  EXPECT_FALSE(d.interleaved);
  EXPECT_EQ(j["model_type"], "deepseek_v2");
  EXPECT_EQ(j["qk_nope_head_dim"], 16);
  EXPECT_EQ(j["qk_rope_head_dim"], 8);
  EXPECT_EQ(j["v_head_dim"], 20);
  EXPECT_EQ(j["num_key_value_heads"], 2);
  EXPECT_EQ(j["topk_method"], "greedy");
  EXPECT_EQ(j["norm_topk_prob"], false);
  EXPECT_EQ(j["routed_scaling_factor"], 1);
  EXPECT_NEAR(j["rope_scaling"]["mscale_all_dim"].get<double>(), 0.707, 1e-12);
  EXPECT_EQ(j["rope_scaling"]["mscale"], j["rope_scaling"]["mscale_all_dim"]);
  EXPECT_EQ(j["rope_scaling"]["beta_fast"], 32);
  EXPECT_TRUE(model::config_from_json(j).rope_interleave);
  for (const char* key : {"key_length_mla", "value_length_mla", "q_lora_rank"})
    g.drop(std::string("deepseek2.attention.") + key);
  g.put("deepseek2.expert_group_count", 4);
  g.put("deepseek2.expert_group_used_count", 2);
  g.put("deepseek2.expert_weights_scale", 16.0);
  j = config_of(g);
  EXPECT_EQ(j["qk_nope_head_dim"], 40);
  EXPECT_EQ(j["v_head_dim"], 32);
  EXPECT_TRUE(j["q_lora_rank"].is_null());
  EXPECT_EQ(j["topk_method"], "group_limited_greedy");
  EXPECT_EQ(j["n_group"], 4);
  EXPECT_EQ(j["routed_scaling_factor"], 16);
}

TEST(GgufConfig, GatingDecidesTheFamily) {
  Bytes g = deepseek2_metadata();
  g.put("deepseek2.expert_gating_func", 2);
  g.put("deepseek2.expert_weights_norm", true);
  g.put("deepseek2.nextn_predict_layers", 1);
  json j = config_of(g);
  EXPECT_EQ(j["model_type"], "deepseek_v3");
  EXPECT_EQ(j["scoring_func"], "sigmoid");
  EXPECT_EQ(j["topk_method"], "noaux_tc");
  EXPECT_EQ(j["norm_topk_prob"], true);
  EXPECT_EQ(j["num_hidden_layers"], 2);
  EXPECT_EQ(j["num_nextn_predict_layers"], 1);
  g.drop("deepseek2.expert_gating_func");
  g.drop("deepseek2.nextn_predict_layers");
  EXPECT_EQ(config_of(g)["model_type"], "deepseek_v2");
  g.add("blk.1.exp_probs_b.bias", {8}, 0, std::string(32, '\0'));
  EXPECT_EQ(config_of(g)["model_type"], "deepseek_v3");
  checkpoint::GgufDescription d;
  config_of(g, &d);
  EXPECT_TRUE(d.notes.empty());
  g.put("deepseek2.expert_count", 256);
  config_of(g, &d);
  ASSERT_EQ(d.notes.size(), 1u);
  EXPECT_NE(d.notes[0].find("n_group=8"), std::string::npos);
}

// Factors of frequencies: the settings that are found say the same, whatever they are made of.
TEST(GgufConfig, FactorsOfFrequencies) {
  const auto said = [](const ops::RopeScaling& s, int64_t dim, double theta) {
    Bytes g = llama_metadata();
    g.put("llama.attention.key_length", static_cast<int>(dim));
    g.put("llama.attention.value_length", static_cast<int>(dim));
    g.put("llama.rope.freq_base", theta);
    std::string bytes;
    for (const float f : checkpoint::gguf_rope_factors(dim, theta, s)) bytes += Bytes::raw(f);
    g.add("rope_freqs.weight", {static_cast<uint64_t>(dim / 2)}, 0, bytes);
    return config_of(g)["rope_scaling"];
  };
  ops::RopeScaling s;
  s.kind = ops::RopeScaling::Kind::llama3;
  s.factor = 32, s.original_max_position = 8192;
  EXPECT_EQ(said(s, 128, 5e5), json({{"rope_type", "llama3"},
                                     {"factor", 32.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 8192}}));
  s.factor = 8, s.original_max_position = 1024;
  EXPECT_EQ(said(s, 64, 1e4)["original_max_position_embeddings"], 1024);
  for (const auto& [low, high, original] : {std::tuple{1., 4., 96}, {0.5, 7.25, 300}, {2., 2.5, 4000}, {1., 1.01, 500}})
    for (const int64_t dim : {12, 16, 64}) {
      s.low_freq_factor = low, s.high_freq_factor = high, s.original_max_position = original;
      const model::ModelConfig c = model::config_from_json(
          {{"model_type", "llama"}, {"intermediate_size", 8}, {"rope_scaling", said(s, dim, 5e5)}});
      const auto got = checkpoint::gguf_rope_factors(dim, 5e5, c.rope_scaling),
                 want = checkpoint::gguf_rope_factors(dim, 5e5, s);
      for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6 * want[i]) << low << " " << dim;
    }
  Bytes g = llama_metadata();
  g.add("rope_freqs.weight", {4}, 0, Bytes::raw(1.f) + Bytes::raw(7.f) + Bytes::raw(2.f) + Bytes::raw(8.f));
  expect_no_config(g, [](Bytes&) {}, {"rope_freqs.weight", "no settings of Llama 3"});
  g = llama_metadata();
  g.add("rope_freqs.weight", {4}, 0, Bytes::raw(1.f) + Bytes::raw(1.f) + Bytes::raw(8.f) + Bytes::raw(8.f));
  EXPECT_EQ(config_of(g)["rope_scaling"]["factor"], 8.0);
  expect_no_config(g, [](Bytes& b) { b.put("llama.rope.scale_linear", 4.0); }, {"both at once"});
}

TEST(GgufConfig, Qwen) {
  for (const std::string a : {"qwen2", "qwen3"}) {
    Bytes g = llama_metadata();
    for (Bytes::Value& v : g.values)
      if (v.key.starts_with("llama.")) v.key = a + v.key.substr(5);
    g.put("general.architecture", a.c_str());
    checkpoint::GgufDescription d;
    const json j = config_of(g, &d);
    EXPECT_FALSE(d.interleaved);
    EXPECT_EQ(j["model_type"], a);
    const model::ModelConfig c = model::config_from_json(j);
    EXPECT_EQ(c.qkv_bias, a == "qwen2");
    EXPECT_EQ(c.qk_norm, a == "qwen3");
    g.put(a + ".attention.key_length", 16);
    g.put(a + ".attention.value_length", 16);
    EXPECT_EQ(model::config_from_json(config_of(g)).head_dim, 16);
  }
}

TEST(GgufConfig, Refused) {
  const auto llama = [](auto&& edit, std::vector<std::string> parts) {
    expect_no_config(llama_metadata(), edit, std::move(parts));
  };
  llama([](Bytes& g) { g.drop("general.architecture"); }, {"general.architecture is missing"});
  llama([](Bytes& g) { g.put("general.architecture", "mamba9"); }, {"\"mamba9\"", "deepseek2"});
  llama([](Bytes& g) { g.put("general.architecture", 7); }, {"general.architecture is 7"});
  llama([](Bytes& g) { g.drop("llama.block_count"); }, {"llama.block_count is missing"});
  llama([](Bytes& g) { g.put("llama.block_count", Bytes::u32, Bytes::raw(uint32_t{1} << 31)); }, {"2147483648"});
  llama([](Bytes& g) { g.put("llama.block_count", 2'000'000); }, {"num_hidden_layers", "2000000"});
  llama([](Bytes& g) { g.put("llama.attention.head_count", 0); }, {"head_count is 0"});
  llama([](Bytes& g) { g.put("llama.attention.head_count", 3); }, {"num_attention_heads"});
  llama([](Bytes& g) { g.drop("llama.attention.layer_norm_rms_epsilon"); }, {"epsilon is missing"});
  llama([](Bytes& g) { g.put("llama.rope.dimension_count", 4); }, {"dimension_count is 4", "8"});
  llama([](Bytes& g) { g.put("llama.attention.value_length", 4); }, {"value_length is 4"});
  llama([](Bytes& g) { g.put("llama.rope.scaling.type", "longrope"); }, {"\"longrope\""});
  llama([](Bytes& g) { g.put("llama.rope.scaling.type", "yarn"); }, {"factor is missing"});
  llama(
      [](Bytes& g) {
        g.put("llama.feed_forward_length", Bytes::array, Bytes::raw_array<uint32_t>(Bytes::u32, {64, 32}));
      },
      {"feed_forward_length is 32 to 64"});
  llama([](Bytes& g) { g.tensors.clear(); }, {"token_embd.weight is missing"});
  llama(
      [](Bytes& g) {
        g.put("tokenizer.ggml.tokens", Bytes::array, Bytes::raw_array({"a", "b"}));
        g.put("tokenizer.ggml.scores", Bytes::array, Bytes::raw_array<float>(Bytes::f32, {0, 0, 0}));
      },
      {"scores has 3 entries", "2"});
  llama(
      [](Bytes& g) {
        g.put("tokenizer.ggml.tokens", Bytes::array, Bytes::raw_array(std::vector<std::string>(101, "t")));
      },
      {"101 entries", "100 rows"});
  const auto latent = [](auto&& edit, std::vector<std::string> parts) {
    expect_no_config(deepseek2_metadata(), edit, std::move(parts));
  };
  latent([](Bytes& g) { g.put("deepseek2.attention.key_length_mla", 8); }, {"key_length_mla is 8"});
  latent([](Bytes& g) { g.put("deepseek2.expert_gating_func", 4); }, {"expert_gating_func is 4"});
  latent([](Bytes& g) { g.drop("deepseek2.rope.scaling.yarn_log_multiplier"); }, {"yarn_log_multiplier is missing"});
  latent([](Bytes& g) { g.put("deepseek2.rope.scaling.attn_factor", 0.5); }, {"attn_factor is 0.5"});
  latent([](Bytes& g) { g.put("deepseek2.expert_gating_func", 2), g.put("deepseek2.nextn_predict_layers", 3); },
         {"nextn_predict_layers is 3 of 3"});
}

TEST(GgufConfig, DirectoriesAndFilesAreToldApart) {
  TempDir dir;
  const std::string file = dir.file("models/a.gguf", llama_metadata().bytes());
  EXPECT_EQ(checkpoint::resolve_model(file), file);
  EXPECT_EQ(checkpoint::read_model_config(file)["hidden_size"], 32);
  expect_error([&] { checkpoint::resolve_model(dir / "models"); }, {"no config.json", "give " + file});
  expect_error([&] { checkpoint::resolve_model(dir / "none.gguf"); }, {"does not exist"});
  expect_error([&] { checkpoint::resolve_model(dir.file("x.bin", "abc")); }, {"is not a directory", "GGUF"});
}

// convert: rotary rows go back half a head apart, the latent projections into one.
TEST(GgufConfig, RowsOfDirectories) {
  const std::string path = committed_dir() + "/gguf/models/llama/f16.gguf";
  checkpoint::ModelFiles files(path);
  model::ModelConfig c = model::config_from_json(files.config());
  EXPECT_TRUE(files.complete(c).empty());
  EXPECT_TRUE(c.interleaved_rows);
  const model::Weights shapes(c);
  const auto parameters = model::list_parameters(shapes);
  const checkpoint::TensorMap map = files.match(c, parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const model::ParameterInfo& p = parameters[i];
    std::vector<float> ours(static_cast<size_t>(p.size())), theirs(ours.size());
    checkpoint::ModelFiles::read_rows(map, c, p, i, 0, p.rows, Mat(ours.data(), f32_t, p.rows, p.cols));
    ops::expand_rows(map.views[i], 0, p.rows, Mat(theirs.data(), f32_t, p.rows, p.cols));
    const bool rotary = p.name.ends_with("q_proj.weight") || p.name.ends_with("k_proj.weight");
    EXPECT_EQ(ours == theirs, !rotary) << p.name;
    if (!rotary) continue;
    for (int64_t r = 0; r < p.rows; ++r)  // row 2j of a head is row j of its first half, 2j + 1 of its second
      for (int64_t k = 0; k < p.cols; ++k)
        EXPECT_EQ(theirs[static_cast<size_t>(r * p.cols + k)],
                  ours[static_cast<size_t>((r / 8 * 8 + r % 8 / 2 + r % 2 * 4) * p.cols + k)]);
  }
}

}  // namespace
}  // namespace birkhoff::test
