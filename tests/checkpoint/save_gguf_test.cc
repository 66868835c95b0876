// Models written as GGUF files: what is read from them again.
#include "checkpoint/save_gguf.h"

#include <cmath>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/gguf_metadata.h"
#include "checkpoint/model_files.h"
#include "infer/engine.h"
#include "io/safetensors.h"
#include "support/gguf_copy.h"
#include "support/golden.h"
#include "support/matrix.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"
#include "support/to_gguf.h"

namespace birkhoff::test {
namespace {

using ops::StoredType;

model::ModelConfig dense(const char* type, bool bias = false, bool norm = false) {
  model::ModelConfig c = small_qwen_config(bias, norm);
  c.model_type = type;
  c.hidden_size = 64, c.head_dim = 16, c.intermediate_size = 96;
  return c;
}

model::ModelConfig with_experts(const char* type, int64_t shared) {
  model::ModelConfig c = dense(type);
  c.n_routed_experts = 4, c.num_experts_per_tok = 2, c.n_shared_experts = shared, c.moe_intermediate_size = 32;
  c.scoring_func = ops::Scoring::softmax, c.topk_method = model::TopkMethod::greedy, c.routed_scaling_factor = 1;
  c.norm_topk_prob = shared == 0;
  c.first_k_dense_replace = shared > 0;
  return c;
}

model::ModelConfig latent(const char* type) {
  model::ModelConfig c = wide_config("plain");
  c.model_type = type;
  c.vocab_size = 40;
  c.rope_scaling.kind = ops::RopeScaling::Kind::yarn;
  c.rope_scaling.factor = 4, c.rope_scaling.original_max_position = 64;
  c.rope_scaling.mscale = c.rope_scaling.mscale_all_dim = 0.7;
  if (std::string(type) == "deepseek_v32") c.index_n_heads = 3, c.index_head_dim = 16, c.index_topk = 5;
  if (c.index_topk > 0 || std::string(type) == "deepseek_v3") {
    c.num_nextn_predict_layers = 1;
    return c;
  }
  c.scoring_func = ops::Scoring::softmax, c.topk_method = model::TopkMethod::greedy, c.n_group = c.topk_group = 1;
  c.norm_topk_prob = false;
  c.q_lora_rank = 0;
  return c;
}

// Rows of whole blocks in some matrices, of the routed experts too.
model::ModelConfig v4() {
  model::ModelConfig c = wide_v4_config();
  c.vocab_size = 40, c.hidden_size = 64, c.q_lora_rank = 32, c.moe_intermediate_size = 32;
  return c;
}

model::ModelConfig scaled(model::ModelConfig c, ops::RopeScaling::Kind kind) {
  c.rope_scaling.kind = kind;
  c.rope_scaling.factor = 8, c.rope_scaling.original_max_position = 96;
  c.rope_theta = 5e5;
  return c;
}

struct GgufSaveCase {
  const char* name;
  model::ModelConfig config;
  bool rounded;  // rotary rows stand in another order, in which a head is summed, or a factor is stored in fp32
};
void PrintTo(const GgufSaveCase& c, std::ostream* out) { *out << c.name; }

std::vector<GgufSaveCase> save_cases() {
  using Kind = ops::RopeScaling::Kind;
  model::ModelConfig tied = dense("llama");
  tied.tie_word_embeddings = true;
  model::ModelConfig gain = scaled(dense("qwen3", false, true), Kind::yarn);
  gain.rope_scaling.attention_factor = 1.5;
  return {{"llama", dense("llama"), true},
          {"tied", tied, true},
          {"linear", scaled(dense("llama"), Kind::linear), true},
          {"llama3", scaled(dense("llama"), Kind::llama3), true},
          {"yarn", scaled(dense("llama"), Kind::yarn), true},
          {"gain", gain, true},
          {"qwen2", dense("qwen2", true), false},
          {"qwen3", dense("qwen3", false, true), false},
          {"mixtral", with_experts("mixtral", 0), true},
          {"deepseek", with_experts("deepseek", 2), true},
          {"deepseek_v2", latent("deepseek_v2"), false},
          {"deepseek_v3", latent("deepseek_v3"), false},
          {"deepseek_v32", latent("deepseek_v32"), false},
          {"deepseek_v4", v4(), false}};
}

std::vector<double> logits_of_path(const std::string& path, const char* compute, ops::WeightFormat weights) {
  infer::EngineOptions o;
  o.compute = compute, o.threads = 2, o.max_positions = 64;
  o.weights.matrices = o.weights.head = weights;
  const infer::Engine engine(path, o);
  std::vector<double> got;
  engine.full_logits(random_ids(12, engine.model().config.vocab_size),
                     [&](int64_t, std::span<const float> row) { got.insert(got.end(), row.begin(), row.end()); });
  return got;
}

class SaveGguf : public testing::TestWithParam<GgufSaveCase> {};

TEST_P(SaveGguf, LogitsOfTheSource) {
  const GgufSaveCase& one = GetParam();
  TempDir dir;
  write_model(dir / "m", one.config);
  using Format = ops::WeightFormat;
  to_gguf(dir / "m", dir / "f32.gguf", StoredType::f32, StoredType::f32);
  const std::vector<double> want = logits_of_path(dir / "m", "fp32", Format::stored);
  // Sixteen roundings of the largest logit where sums run in another order, or factors went into matrices.
  const double tolerance = one.rounded ? 16 * 0x1p-24 * largest(want) : 0;
  expect_close(logits_of_path(dir / "f32.gguf", "fp32", Format::stored), want, tolerance, one.name);
  // A model of bf16 numbers is in bf16 what it is in fp32, and blocks are those that opening with q8 makes.
  to_gguf(dir / "m", dir / "bf16.gguf", StoredType::bf16, StoredType::bf16);
  to_gguf(dir / "bf16.gguf", dir / "again.gguf", StoredType::f32, StoredType::f32);
  EXPECT_EQ(logits_of_path(dir / "bf16.gguf", "bf16", Format::stored),
            logits_of_path(dir / "again.gguf", "bf16", Format::stored));
  if (one.config.uses_mla() || one.config.tie_word_embeddings) return;
  to_gguf(dir / "bf16.gguf", dir / "q8.gguf", StoredType::q8_0, StoredType::q8_0);
  EXPECT_EQ(logits_of_path(dir / "q8.gguf", "bf16", Format::automatic),
            logits_of_path(dir / "bf16.gguf", "bf16", Format::q8));
}

TEST_P(SaveGguf, SettingsAndBytesComeBack) {
  const GgufSaveCase& one = GetParam();
  TempDir dir;
  write_model(dir / "m", one.config);
  to_gguf(dir / "m", dir / "a.gguf", StoredType::q4_0, StoredType::q8_0, 1);
  to_gguf(dir / "a.gguf", dir / "b.gguf", StoredType::q4_0, StoredType::q8_0, 3);
  if (!one.config.uses_mla()) {  // whose keys are quantised along the other side
    EXPECT_TRUE(read_file(dir / "a.gguf") == read_file(dir / "b.gguf"));
  }
  const nlohmann::json said = checkpoint::read_model_config(dir / "a.gguf");
  EXPECT_EQ(said["model_type"], one.config.model_type);
  const auto same = [&](const std::string& path) {
    nlohmann::json j = model::config_to_json(model::config_from_json(checkpoint::read_model_config(path)));
    for (const char* key : {"initializer_range", "torch_dtype"}) j.erase(key);  // of training
    if (j["rope_scaling"].is_object())
      for (const char* key : {"mscale", "mscale_all_dim", "attention_factor"})
        if (j["rope_scaling"].contains(key))
          j["rope_scaling"][key] = std::round(1e6 * j["rope_scaling"][key].get<double>());
    return j;
  };
  EXPECT_EQ(same(dir / "a.gguf"), same(dir / "m"));
}
INSTANTIATE_TEST_SUITE_P(Types, SaveGguf, testing::ValuesIn(save_cases()),
                         [](const auto& one) { return std::string(one.param.name); });

// The directory with its q_proj and k_proj in FP4, a factor for 32 of a row, all else numbers that bf16 holds.
void rotary_rows_to_fp4(const std::string& from, const std::string& to) {
  const io::SafetensorsFile file(from + "/model.safetensors");
  std::deque<std::string> memory;
  std::vector<io::TensorEntry> list;
  const Rng rng(3);
  uint64_t drawn = 0;
  const auto add = [&](const std::string& name, io::TensorType type, int64_t rows, int64_t cols, uint8_t least,
                       uint8_t most) {
    std::string& bytes = memory.emplace_back(static_cast<size_t>(rows * cols), '\0');
    for (char& b : bytes) b = static_cast<char>(least + rng.bits(drawn++) % (most - least + 1u));
    list.push_back({name, type, {rows, cols}, reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  };
  for (const io::TensorEntry& t : file.tensors()) {
    const bool rotary = t.name.ends_with("q_proj.weight") || t.name.ends_with("k_proj.weight");
    if (!rotary) {
      std::string& bytes = memory.emplace_back(reinterpret_cast<const char*>(t.data), t.bytes);
      for (size_t i = 0; i < bytes.size(); i += 4) bytes[i] = bytes[i + 1] = 0;
      list.push_back(t);
      list.back().data = reinterpret_cast<const std::byte*>(bytes.data());
      continue;
    }
    add(t.name, io::TensorType::i8, t.shape[0], t.shape[1] / 2, 0, 255);
    const std::string module = t.name.substr(0, t.name.rfind('.'));
    add(module + ".scale", io::TensorType::f8_e8m0, t.shape[0], t.shape[1] / 32, 117, 121);
  }
  std::filesystem::create_directories(to);
  std::filesystem::copy_file(from + "/config.json", to + "/config.json");
  io::write_safetensors(to + "/model.safetensors", list, {});
}

TEST(SaveGgufFp4, RotaryRows) {
  for (const auto& c : {dense("llama"), with_experts("mixtral", 0), with_experts("deepseek", 2)}) {
    TempDir dir;
    write_model(dir / "m", c);
    rotary_rows_to_fp4(dir / "m", dir / "fp4");
    to_gguf(dir / "fp4", dir / "a.gguf", StoredType::bf16, StoredType::bf16);
    EXPECT_STREQ(io::GgufFile(dir / "a.gguf").find("blk.0.attn_q.weight")->type->name, "MXFP4");
    EXPECT_STREQ(io::GgufFile(dir / "a.gguf").find("blk.0.attn_k.weight")->type->name, "MXFP4");
    const std::vector<double> want = logits_of_path(dir / "fp4", "fp32", ops::WeightFormat::stored);
    expect_close(logits_of_path(dir / "a.gguf", "fp32", ops::WeightFormat::stored), want, 16 * 0x1p-24 * largest(want),
                 c.model_type);
    to_gguf(dir / "a.gguf", dir / "b.gguf", StoredType::bf16, StoredType::bf16);
    EXPECT_TRUE(read_file(dir / "a.gguf") == read_file(dir / "b.gguf"));
  }
}

TEST(GgufSaving, WhatHasNoPlaceThere) {
  const auto refused = [](model::ModelConfig c, std::vector<std::string> parts) {
    model::validate(c);
    parts.push_back("GGUF");
    expect_error([&] { checkpoint::gguf_architecture(c); }, parts);
  };
  refused(small_config("mhc"), {"hyper-connections", "mhc", "4 streams"});
  model::ModelConfig c = small_v4_config();
  c.model_type = model::kOwnType;
  model::validate(c);
  EXPECT_EQ(checkpoint::gguf_architecture(c), "deepseek4");
  c.residual = ops::ResidualKind::plain;
  refused(c, {"DeepSeek-V4", "compress_ratios", "residual \"plain\""});
  c = with_form(small_v4_config(), "lite");
  c.model_type = model::kOwnType;
  refused(c, {"DeepSeek-V4", "hc_res_form \"lite\""});
  c = small_v4_config();
  c.n_shared_experts = 0;
  refused(c, {"n_shared_experts 0"});
  c = latent("deepseek_v32");
  c.model_type = model::kOwnType;
  EXPECT_EQ(checkpoint::gguf_architecture(c), "deepseek32");
  c.scoring_func = ops::Scoring::softmax, c.topk_method = model::TopkMethod::greedy;
  refused(c, {"lightning indexer", "index_topk 5", "scoring_func softmax"});
  refused(small_config("plain", 1, false), {"DeepSeek-V3", "without latent attention"});
  refused(small_qwen_config(true, true), {"qkv_bias and qk_norm"});
  c = with_experts("deepseek", 2);
  c.norm_topk_prob = true;
  refused(c, {"norm_topk_prob"});
  c = dense("qwen2", true);
  c.head_dim = 8;
  refused(c, {"4 heads of 8", "hidden_size 64", "qwen2"});
  io::GgufMetadata m;
  c = latent("deepseek_v2");
  c.rope_scaling.mscale = 1;
  expect_error([&] { checkpoint::put_gguf_settings(m, c); }, {"mscale 1", "mscale_all_dim 0.7"});
  c = latent("deepseek_v2");
  c.n_group = 4, c.topk_group = 2, c.topk_method = model::TopkMethod::group_limited_greedy;
  EXPECT_EQ(checkpoint::gguf_notes(c).size(), 2u);  // groups, and a number of layers that means a q_lora_rank
  EXPECT_TRUE(checkpoint::gguf_notes(dense("llama")).empty());
  EXPECT_EQ(checkpoint::gguf_notes(latent("deepseek_v32")).size(), 2u);  // heads of 16, mscale
  c = v4();
  c.num_nextn_predict_layers = 1, c.hc_mult = 2;
  EXPECT_EQ(checkpoint::gguf_notes(c).size(), 4u);  // heads of 16, the module, 2 streams, a ratio of 16
  c.num_nextn_predict_layers = 0, c.hc_mult = 4, c.index_head_dim = 64, c.compress_ratios = {0, 4, 128};
  EXPECT_TRUE(checkpoint::gguf_notes(c).empty());
}

TEST(GgufSaving, NumbersThatDoNotFitLeaveTheOldFile) {
  TempDir dir;
  model::ModelConfig c = dense("llama");
  SmallModel s(c, f32_t, 8, one_thread());
  s.m->block[3] = 1e6f;  // of the embedding
  checkpoint::save_weights(dir.path(), *s.m, model::config_to_json(s.m->config), f32_t);
  const std::string path = dir.file("m.gguf", "old");
  expect_error([&] { to_gguf(dir.path(), path, StoredType::f16, StoredType::f16); },
               {"token_embd.weight", "1000000", "F16", "--gguf-type bf16"});
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(listing(dir.path()), "config.json m.gguf model.safetensors");
  to_gguf(dir.path(), path, StoredType::bf16, StoredType::bf16);
  EXPECT_EQ(io::GgufFile(path).version(), 3u);
  expect_error([&] { checkpoint::parse_gguf_type("--gguf-type", "q5"); }, {"q5", "q8_0"}, ExitCode::usage);
}

}  // namespace
}  // namespace birkhoff::test
