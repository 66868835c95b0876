// Files of architecture deepseek4: settings, tables of experts, numbers of FP4, no prediction modules.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/model_files.h"
#include "checkpoint/save_gguf.h"
#include "support/gguf_config.h"
#include "support/gguf_copy.h"
#include "support/matrix.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using ops::StoredType;

model::ModelConfig v4_of_blocks() {
  model::ModelConfig c = wide_v4_config();
  c.vocab_size = 40, c.hidden_size = 64, c.moe_intermediate_size = 32;
  return c;
}

struct V4Source {
  explicit V4Source(const std::string& path) : files(path), config(model::config_from_json(files.config())) {
    files.complete(config);
    const model::Weights shapes(config);
    parameters = model::list_parameters(shapes);
    map = files.match(config, parameters);
  }
  void write(const std::string& to, StoredType type) const {
    const Exec exec(2);
    checkpoint::GgufSaveOptions o;
    o.matrices = o.head = type;
    checkpoint::save_gguf(exec, to, config, parameters, map, {}, {}, o);
  }
  std::vector<float> numbers(size_t i) const {
    const model::ParameterInfo& p = parameters[i];
    std::vector<float> out(static_cast<size_t>(p.size()));
    ops::expand_rows(map.views[i], 0, p.rows, Mat(out.data(), f32_t, p.rows, p.cols));
    return out;
  }
  checkpoint::ModelFiles files;
  model::ModelConfig config;
  std::vector<model::ParameterInfo> parameters;
  checkpoint::TensorMap map;
};

GgufBytes deepseek4_metadata() {
  GgufBytes g;
  g.put("general.architecture", "deepseek4");
  const auto put = [&](const char* name, auto v) { g.put(std::string("deepseek4.") + name, v); };
  for (const auto& [name, v] : std::vector<std::pair<const char*, int>>{{"block_count", 3},
                                                                        {"context_length", 65536},
                                                                        {"embedding_length", 32},
                                                                        {"attention.head_count", 4},
                                                                        {"attention.head_count_kv", 1},
                                                                        {"attention.key_length", 32},
                                                                        {"attention.value_length", 32},
                                                                        {"rope.dimension_count", 8},
                                                                        {"rope.scaling.original_context_length", 4096},
                                                                        {"attention.q_lora_rank", 16},
                                                                        {"attention.sliding_window", 16},
                                                                        {"attention.output_group_count", 2},
                                                                        {"attention.output_lora_rank", 12},
                                                                        {"attention.indexer.head_count", 8},
                                                                        {"attention.indexer.key_length", 16},
                                                                        {"attention.indexer.top_k", 6},
                                                                        {"expert_count", 8},
                                                                        {"expert_used_count", 3},
                                                                        {"expert_feed_forward_length", 24},
                                                                        {"expert_shared_count", 1},
                                                                        {"expert_gating_func", 4},
                                                                        {"hash_layer_count", 1},
                                                                        {"hyper_connection.count", 4},
                                                                        {"hyper_connection.sinkhorn_iterations", 20}})
    put(name, v);
  for (const auto& [name, v] : std::vector<std::pair<const char*, double>>{{"attention.layer_norm_rms_epsilon", 1e-6},
                                                                           {"attention.compress_rope_freq_base", 16e4},
                                                                           {"rope.scaling.factor", 16},
                                                                           {"expert_weights_scale", 1.5},
                                                                           {"hyper_connection.epsilon", 1e-6}})
    put(name, v);
  put("rope.scaling.type", "yarn");
  put("expert_weights_norm", true);
  g.put("deepseek4.attention.compress_ratios", GgufBytes::array,
        GgufBytes::raw_array<int32_t>(GgufBytes::i32, {0, 4, 128, 0}));
  for (const char* name : {"deepseek4.swiglu_clamp_exp", "deepseek4.swiglu_clamp_shexp"})
    g.put(name, GgufBytes::array, GgufBytes::raw_array<float>(GgufBytes::f32, {2.3f, 2.3f, 2.3f}));
  g.add("token_embd.weight", {32, 100}, 1, std::string(100 * 32 * 2, '\0'));
  return g;
}

TEST(GgufV4, Settings) {
  GgufBytes g = deepseek4_metadata();
  const nlohmann::json j = config_of(g);
  EXPECT_EQ(j["model_type"], "deepseek_v4");
  EXPECT_EQ(j["compress_ratios"], nlohmann::json({0, 4, 128, 0}));
  EXPECT_EQ(j["swiglu_limit"], 2.3);
  EXPECT_EQ(j["hc_eps"], 1e-6);
  EXPECT_EQ(j["compress_rope_theta"], 160000);
  EXPECT_EQ(j["rope_theta"], 10000);
  EXPECT_FALSE(j["rope_scaling"].contains("mscale"));
  EXPECT_EQ(j["rope_scaling"]["factor"], 16);
  const model::ModelConfig c = model::config_from_json(j);
  EXPECT_EQ(c.scoring_func, ops::Scoring::sqrtsoftplus);
  EXPECT_EQ(c.residual, ops::ResidualKind::mhc);
  EXPECT_EQ(c.num_hash_layers, 1);
  EXPECT_EQ(c.o_groups, 2);
  g.put("deepseek4.swiglu_clamp_exp", 7.5);  // one for all layers
  g.drop("deepseek4.swiglu_clamp_shexp");
  g.put("deepseek4.rope.scaling.type", "none");
  EXPECT_EQ(config_of(g)["swiglu_limit"], 7.5);
  EXPECT_TRUE(config_of(g)["rope_scaling"].is_null());
}

TEST(GgufV4, SettingsThatAreMissingOrWrong) {
  for (const char* key : {"attention.key_length",
                          "attention.q_lora_rank",
                          "attention.sliding_window",
                          "attention.output_group_count",
                          "attention.output_lora_rank",
                          "attention.compress_ratios",
                          "attention.compress_rope_freq_base",
                          "attention.indexer.head_count",
                          "attention.indexer.key_length",
                          "attention.indexer.top_k",
                          "rope.dimension_count",
                          "expert_count",
                          "expert_used_count",
                          "expert_feed_forward_length",
                          "expert_shared_count",
                          "expert_gating_func",
                          "hash_layer_count",
                          "swiglu_clamp_exp",
                          "hyper_connection.count",
                          "hyper_connection.sinkhorn_iterations",
                          "hyper_connection.epsilon"})
    expect_no_config(deepseek4_metadata(), [&](GgufBytes& b) { b.drop(std::string("deepseek4.") + key); },
                     {std::string("deepseek4.") + key + " is missing"});
  const auto refused = [](const char* key, auto v, std::vector<std::string> parts) {
    expect_no_config(
        deepseek4_metadata(), [&](GgufBytes& b) { b.put(std::string("deepseek4.") + key, v); }, std::move(parts));
  };
  refused("expert_gating_func", 2, {"expert_gating_func is 2", "only 4"});
  refused("expert_weights_norm", false, {"expert_weights_norm is not true"});
  refused("attention.head_count_kv", 2, {"head_count_kv is 2", "only 1"});
  refused("attention.value_length", 16, {"value_length is 16", "only 32"});
  refused("swiglu_clamp_shexp", 1.0, {"swiglu_clamp_shexp is 1.0", "2.3"});
  refused("block_count", 6, {"compress_ratios: 4 entries", "6"});
  refused("attention.output_group_count", 3, {"o_groups: 3", "4"});
  refused("rope.scaling.attn_factor", 0.5, {"attn_factor is 0.5"});
  expect_no_config(
      deepseek4_metadata(),
      [](GgufBytes& b) {
        b.put("deepseek4.swiglu_clamp_exp", GgufBytes::array, GgufBytes::raw_array<float>(GgufBytes::f32, {2, 3, 3}));
      },
      {"swiglu_clamp_exp is 2", "3", "layers that differ"});
}

// Names of llama.cpp's deepseek4, a layer of every kind; types that its operations need.
TEST(GgufV4, NamesAndTypes) {
  TempDir dir;
  model::ModelConfig c = v4_of_blocks();
  c.num_nextn_predict_layers = 1;
  write_model(dir / "m", c);
  V4Source(dir / "m").write(dir / "m.gguf", StoredType::q8_0);
  const io::GgufFile f(dir / "m.gguf");
  EXPECT_EQ(*f.text("general.architecture"), "deepseek4");
  EXPECT_EQ(*f.natural("deepseek4.block_count"), 3u);
  EXPECT_EQ(*f.naturals("deepseek4.attention.compress_ratios"), (std::vector<uint64_t>{0, 4, 16, 0}));
  EXPECT_EQ(*f.numbers("deepseek4.swiglu_clamp_exp"), (std::vector<double>{2, 2, 2}));
  const std::vector<std::string> everywhere = {
      "attn_norm",      "ffn_norm",      "hc_attn_fn",     "hc_attn_scale", "hc_attn_base",  "hc_ffn_fn",
      "hc_ffn_scale",   "hc_ffn_base",   "attn_q_a",       "attn_q_a_norm", "attn_q_b",      "attn_kv",
      "attn_kv_a_norm", "attn_sinks",    "attn_output_a",  "attn_output_b", "ffn_gate_inp",  "ffn_gate_exps",
      "ffn_up_exps",    "ffn_down_exps", "ffn_gate_shexp", "ffn_up_shexp",  "ffn_down_shexp"};
  std::vector<std::string> want = {"token_embd.weight",
                                   "output_norm.weight",
                                   "output.weight",
                                   "output_hc_fn.weight",
                                   "output_hc_scale.weight",
                                   "output_hc_base.weight",
                                   "blk.0.ffn_gate_tid2eid.weight",
                                   "blk.1.exp_probs_b.bias",
                                   "blk.2.exp_probs_b.bias",
                                   "blk.1.indexer.attn_q_b.weight",
                                   "blk.1.indexer.proj.weight"};
  for (const std::string blk : {"blk.0.", "blk.1.", "blk.2."})
    for (const std::string& name : everywhere) want.push_back(blk + name + ".weight");
  for (const char* of : {"blk.1.attn", "blk.1.indexer", "blk.2.attn"})
    for (const char* part : {"kv", "gate", "ape", "norm"})
      want.push_back(std::string(of) + "_compressor_" + part + ".weight");
  std::vector<std::string> got;
  for (const io::GgufTensor& t : f.tensors()) got.emplace_back(t.name);
  std::sort(want.begin(), want.end());
  std::sort(got.begin(), got.end());
  EXPECT_EQ(got, want);
  for (const char* plain : {"blk.0.attn_sinks", "blk.1.hc_ffn_fn", "blk.1.hc_ffn_base", "blk.1.attn_compressor_ape"})
    EXPECT_STREQ(f.find(std::string(plain) + ".weight")->type->name, "F32") << plain;
  EXPECT_STREQ(f.find("blk.0.ffn_gate_tid2eid.weight")->type->name, "I32");
  EXPECT_STREQ(f.find("blk.1.attn_kv.weight")->type->name, "Q8_0");
}

TEST(GgufV4, ThereAndBack) {
  TempDir dir;
  write_model(dir / "m", v4_of_blocks());
  const V4Source source(dir / "m");
  source.write(dir / "a.gguf", StoredType::f32);
  const V4Source read(dir / "a.gguf");
  ASSERT_EQ(read.parameters.size(), source.parameters.size());
  for (size_t i = 0; i < source.parameters.size(); ++i)
    EXPECT_TRUE(read.numbers(i) == source.numbers(i)) << source.parameters[i].name;
  read.write(dir / "b.gguf", StoredType::f32);
  EXPECT_TRUE(read_file(dir / "a.gguf") == read_file(dir / "b.gguf"));
}

// Experts of FP4 with a factor for 32 of a row, as V4's files have them: whatever matrices become, they stay.
TEST(GgufV4, NumbersOfFp4) {
  TempDir dir;
  write_model(dir / "m", v4_of_blocks());
  V4Source source(dir / "m");
  const Rng rng(3);
  uint64_t drawn = 0;
  std::vector<std::vector<uint8_t>> memory;
  const auto bytes = [&](int64_t n, uint8_t least, uint8_t most) {
    memory.emplace_back(static_cast<size_t>(n));
    for (uint8_t& b : memory.back()) b = static_cast<uint8_t>(least + rng.bits(drawn++) % (most - least + 1u));
    return memory.back().data();
  };
  for (size_t i = 0; i < source.parameters.size(); ++i) {
    const model::ParameterInfo& p = source.parameters[i];
    if (p.name.find(".experts.") == std::string::npos) continue;
    ops::StoredTensor t;
    t.type = StoredType::fp4, t.scale_type = ops::ScaleType::f8_e8m0, t.block_cols = 32, t.rows = p.rows,
    t.cols = p.cols;
    t.data = bytes(p.size() / 2, 0, 255);
    t.scale = bytes(p.size() / 32, 0, 254);
    source.map.views[i] = {};
    source.map.views[i].append(t);
  }
  for (const StoredType type : {StoredType::bf16, StoredType::q4_0}) {
    source.write(dir / "a.gguf", type);
    const V4Source read(dir / "a.gguf");
    for (size_t i = 0; i < source.parameters.size(); ++i) {
      if (source.parameters[i].name.find(".experts.") == std::string::npos) continue;
      EXPECT_EQ(read.map.views[i].parts[0].tensor.type, StoredType::mxfp4);
      EXPECT_TRUE(read.numbers(i) == source.numbers(i)) << source.parameters[i].name;
    }
    read.write(dir / "b.gguf", type);
    EXPECT_TRUE(read_file(dir / "a.gguf") == read_file(dir / "b.gguf"));
  }
  source.write(dir / "a.gguf", StoredType::f32);
  const V4Source read(dir / "a.gguf");
  EXPECT_STREQ(io::GgufFile(dir / "a.gguf").find("blk.0.ffn_up_exps.weight")->type->name, "F32");
  for (size_t i = 0; i < source.parameters.size(); ++i) EXPECT_TRUE(read.numbers(i) == source.numbers(i));
}

TEST(GgufV4, Refused) {
  TempDir dir;
  write_model(dir / "m", v4_of_blocks());
  V4Source(dir / "m").write(dir / "a.gguf", StoredType::f32);
  const auto refused = [&](auto&& edit, std::vector<std::string> parts) {
    GgufBytes g = gguf_copy(dir / "a.gguf");
    edit(g);
    const std::string path = dir.file("b.gguf", g.bytes());
    parts.push_back(path);
    expect_error([&] { V4Source read(path); }, parts);
  };
  const std::string table = "blk.0.ffn_gate_tid2eid.weight";
  refused(
      [&](GgufBytes& g) {
        const int32_t expert = 8;
        std::memcpy(g.data.data() + g.at(table).offset + 4, &expert, sizeof expert);
      },
      {"value     " + table, "mlp.gate.tid2eid", "expert 8 of n_routed_experts 8"});
  refused([&](GgufBytes& g) { g.at(table).type = 0; }, {"type      " + table, "I32 or I64", "F32"});
  refused(
      [&](GgufBytes& g) {
        g.at(table).dims = {40, 3};
      },
      {"shape     " + table, "expected [40,3], file has [3,40]"});
  for (const char* name : {"output_hc_fn", "output", "blk.1.attn_sinks", "blk.2.hc_attn_base", "blk.1.indexer.proj",
                           "blk.1.indexer_compressor_ape", "blk.2.attn_compressor_kv", "blk.0.attn_output_a"})
    refused([&](GgufBytes& g) { gguf_remove(g, std::string(name) + ".weight"); },
            {"missing   " + std::string(name) + ".weight"});
  refused([&](GgufBytes& g) { g.add("blk.0.attn_compressor_kv.weight", {1}, 0, std::string(4, '\0')); },
          {"unknown   blk.0.attn_compressor_kv.weight [1]"});
}

}  // namespace
}  // namespace birkhoff::test
