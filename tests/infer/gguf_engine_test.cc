// Models in GGUF against logits that were computed in float64 from the numbers their blocks mean, and the other ways in
// which files keep the same weights.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "infer/session.h"
#include "support/gguf_copy.h"
#include "support/golden.h"
#include "support/matrix.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;

std::string gguf_dir() { return golden_dir() + "/gguf/models/"; }

struct GgufCase {
  std::string model, file;
  std::string path() const { return gguf_dir() + model + "/" + file + ".gguf"; }
};
void PrintTo(const GgufCase& c, std::ostream* out) { *out << c.model << "/" << c.file; }

// All of the full set; of this tree those that are here.
std::vector<GgufCase> gguf_cases() {
  const std::vector<std::pair<std::string, std::vector<std::string>>> all = {
      {"coder", {"f16", "q4_0"}},
      {"deepseek", {"bf16", "q4_0", "q5_1"}},
      {"deepseek2", {"f16", "q4_0", "old_q8_0", "q4_0_mixed"}},
      {"deepseek2_groups", {"q8_0"}},
      {"deepseek2_lite", {"q4_0", "old_q4_0"}},
      {"deepseek3", {"bf16", "q4_0", "old_q8_0", "experts_mxfp4"}},
      {"deepseek3_mtp", {"q8_0"}},
      {"llama", {"f32", "f16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "mxfp4"}},
      {"llama_k", {"q2_k", "q3_k", "q4_k", "q5_k", "iq4_xs", "mix"}},
      {"llama_tied", {"f16", "q8_0"}},
      {"mixtral", {"f16", "q8_0", "q4_0"}}};
  std::vector<GgufCase> cases;
  for (const auto& [model, files] : all)
    for (const std::string& file : files)
      if (const GgufCase c{model, file}; golden_dir() != committed_dir() || std::filesystem::exists(c.path()))
        cases.push_back(c);
  return cases;
}

std::vector<int32_t> ids_of_case(const std::string& model) {
  std::ifstream in(gguf_dir() + model + "/ids.txt");
  return {std::istream_iterator<int32_t>(in), {}};
}
std::vector<double> golden_of(const GgufCase& c) {
  return golden(golden_file("gguf/models/" + c.model + "/golden.safetensors"), c.file);
}

infer::EngineOptions gguf_options(const char* compute = "fp32") {
  infer::EngineOptions o;
  o.compute = compute, o.threads = 2, o.max_positions = 32;
  return o;
}

std::vector<double> logits_of(const Engine& engine, const std::vector<int32_t>& ids) {
  std::vector<double> got;
  engine.full_logits(ids, [&](int64_t, std::span<const float> row) { got.insert(got.end(), row.begin(), row.end()); });
  return got;
}

class GgufModelCase : public testing::TestWithParam<GgufCase> {};

TEST_P(GgufModelCase, Logits) {
  const GgufCase c = GetParam();
  const std::vector<int32_t> ids = ids_of_case(c.model);
  ASSERT_EQ(ids.size(), 12u);
  for (const Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    const Engine engine(c.path(), gguf_options());
    EXPECT_EQ(engine.note(), "");
    expect_close(logits_of(engine, ids), golden_of(c), 1e-4, c.file);
  }
}
INSTANTIATE_TEST_SUITE_P(Files, GgufModelCase, testing::ValuesIn(gguf_cases()),
                         [](const auto& one) { return one.param.model + "_" + one.param.file; });

// Written by the package gguf from cases of the full set: biases, norms of heads, factors of frequencies.
TEST(GgufEngine, QwenAndLlama3) {
  for (const std::string model : {"qwen2", "qwen3", "llama3_rope"}) {
    const std::string folder = committed_dir() + "/gguf/models/" + model;
    std::ifstream in(folder + "/ids.txt");
    const std::vector<int32_t> ids{std::istream_iterator<int32_t>(in), {}};
    const Engine engine(folder + "/f32.gguf", gguf_options());
    EXPECT_EQ(engine.note(), "");
    expect_close(logits_of(engine, ids), golden(io::SafetensorsFile(folder + "/golden.safetensors"), "f32"), 1e-4,
                 model);
  }
}

TEST(GgufEngine, SessionsAndRounding) {
  for (const char* file : {"q4_0", "old_q8_0"}) {
    const GgufCase c{"deepseek2", file};
    const std::vector<int32_t> ids = ids_of_case(c.model);
    const std::vector<double> want = golden_of(c);
    for (const auto& [name, how] : NamesOf<model::LatentAttention>::table) {
      SCOPED_TRACE(name);
      infer::EngineOptions options = gguf_options();
      options.latent_attention = how;
      const Engine engine(c.path(), options);
      infer::Session session(engine, 12);
      for (size_t i = 0; i + 1 < ids.size(); ++i) session.feed({&ids[i], 1});
      const auto last = session.feed({&ids.back(), 1});
      const std::vector<double> got(last.begin(), last.end());
      expect_close(got, {want.end() - static_cast<std::ptrdiff_t>(got.size()), want.end()}, 1e-4, file);
    }
    const std::vector<double> rounded = logits_of(Engine(c.path(), gguf_options("bf16")), ids);
    double sum = 0;
    for (size_t i = 0; i < want.size(); ++i) sum += std::pow(rounded[i] - want[i], 2);
    EXPECT_LT(std::sqrt(sum / static_cast<double>(want.size())), 0.1) << file;
  }
}

// `edit` writes the weights of a case in another way: the logits are the same. Returns the engine's note.
template <class F>
std::string expect_same(const GgufCase& c, F&& edit) {
  TempDir dir;
  GgufBytes g = gguf_copy(c.path());
  edit(g);
  const Engine engine(dir.file("m.gguf", g.bytes()), gguf_options());
  expect_close(logits_of(engine, ids_of_case(c.model)), golden_of(c), 1e-4, c.model);
  return engine.note();
}
template <class F>
void expect_unlike(const GgufCase& c, F&& edit, std::vector<std::string> parts) {
  TempDir dir;
  GgufBytes g = gguf_copy(c.path());
  edit(g);
  const std::string path = dir.file("m.gguf", g.bytes());
  parts.push_back(path);
  expect_error([&] { Engine engine(path, gguf_options()); }, parts);
}

TEST(GgufEngine, QueriesKeysAndValuesInOneTensor) {
  expect_same({"llama", "f16"}, [](GgufBytes& g) {
    for (const char* blk : {"blk.0.", "blk.1."}) {
      std::string data;
      for (const char* name : {"attn_q.weight", "attn_k.weight", "attn_v.weight"}) {
        data += gguf_data(g, std::string(blk) + name);
        gguf_remove(g, std::string(blk) + name);
      }
      g.add(std::string(blk) + "attn_qkv.weight", {32, 64}, 1, data);
    }
  });
}

TEST(GgufEngine, ExpertsFusedOrOneByOne) {
  const GgufCase mixtral{"mixtral", "q4_0"};
  const size_t expert = 32 * 18;  // bytes of one of four, [32, 32]
  expect_same(mixtral, [&](GgufBytes& g) {
    for (const std::string blk : {"blk.0.", "blk.1."}) {
      const std::string gate = gguf_data(g, blk + "ffn_gate_exps.weight"),
                        up = gguf_data(g, blk + "ffn_up_exps.weight");
      std::string both;
      for (size_t e = 0; e < 4; ++e) both += gate.substr(e * expert, expert) + up.substr(e * expert, expert);
      gguf_remove(g, blk + "ffn_gate_exps.weight");
      gguf_remove(g, blk + "ffn_up_exps.weight");
      g.add(blk + "ffn_gate_up_exps.weight", {32, 64, 4}, 2, both);
    }
  });
  expect_same(mixtral, [&](GgufBytes& g) {
    for (const std::string blk : {"blk.0.", "blk.1."})
      for (const std::string which : {"gate", "up", "down"}) {
        const std::string stacked = blk + "ffn_" + which + "_exps.weight", data = gguf_data(g, stacked);
        for (size_t e = 0; e < 4; ++e)
          g.add(blk + "ffn_" + which + "." + std::to_string(e) + ".weight", {32, 32}, 2,
                data.substr(e * expert, expert));
        gguf_remove(g, stacked);
      }
  });
}

TEST(GgufEngine, WhatOldFilesCarryBeside) {
  expect_same({"llama", "f16"}, [](GgufBytes& g) {
    g.add("blk.0.attn_rot_embd.weight", {4}, 0, std::string(16, 'x'));
    g.add("rope_freqs.weight", {4}, 0,
          GgufBytes::raw(1.f) + GgufBytes::raw(1.f) + GgufBytes::raw(1.f) + GgufBytes::raw(1.f));
    g.drop("llama.vocab_size");
    g.drop("llama.rope.dimension_count");
    g.drop("llama.attention.head_count_kv");
    g.put("llama.attention.head_count_kv", GgufBytes::array, GgufBytes::raw_array<uint32_t>(GgufBytes::u32, {2, 2}));
  });
  expect_unlike({"llama", "f16"}, [](GgufBytes& g) { g.add("rope_freqs.weight", {4}, 0, std::string(16, '\0')); },
                {"rope_freqs.weight: number 0 is 0"});
  expect_unlike({"llama", "f16"}, [](GgufBytes& g) { g.add("rope_freqs.weight", {2}, 0, std::string(8, '\0')); },
                {"rope_freqs.weight has 2 numbers", "4 pairs"});
}

// The last block once more, with what a prediction module has besides.
void add_module(GgufBytes& g, const std::string& without = "") {
  const std::vector<GgufBytes::Tensor> tensors = g.tensors;
  for (const GgufBytes::Tensor& t : tensors)
    if (t.name.starts_with("blk.2.")) g.add("blk.3." + t.name.substr(6), t.dims, t.type, gguf_data(g, t.name));
  const std::string norm(32 * 4, '\0');
  g.add("blk.3.nextn.eh_proj.weight", {64, 32}, 0, std::string(64 * 32 * 4, '\0'));
  for (const char* name : {"enorm", "hnorm", "shared_head_norm"})
    g.add("blk.3.nextn." + std::string(name) + ".weight", {32}, 0, norm);
  g.add("blk.3.nextn.embed_tokens.weight", {32, 320}, 2, std::string(320 * 18, '\0'));
  g.put("deepseek2.block_count", 4);
  g.put("deepseek2.nextn_predict_layers", 1);
  if (!without.empty()) gguf_remove(g, without);
}

TEST(GgufEngine, PredictionModules) {
  const GgufCase v3{"deepseek3", "q4_0"};
  EXPECT_EQ(expect_same(v3, [](GgufBytes& g) { add_module(g); }), "");
  for (const char* name : {"blk.3.nextn.enorm.weight", "blk.3.attn_k_b.weight", "blk.3.ffn_up_exps.weight"}) {
    const std::string note = expect_same(v3, [&](GgufBytes& g) { add_module(g, name); });
    EXPECT_NE(note.find("opened without them"), std::string::npos) << note;
  }
}

TEST(GgufEngine, ListsEverythingThatDoesNotMatch) {
  expect_unlike(
      {"llama", "f16"},
      [](GgufBytes& g) {
        gguf_remove(g, "blk.1.ffn_down.weight");
        g.at("blk.0.attn_q.weight").dims = {32, 16};
        g.at("output_norm.weight").type = 26;
        g.add("blk.0.attn_q.bias", {32}, 0, std::string(128, '\0'));
      },
      {"missing   blk.1.ffn_down.weight (model.layers.1.mlp.down_proj.weight), expected [32,64]",
       "shape     blk.0.attn_q.weight (model.layers.0.self_attn.q_proj.weight): expected [32,32], file has [16,32]",
       "type      output_norm.weight (model.norm.weight)", "I32", "unknown   blk.0.attn_q.bias [32]"});
  expect_unlike(
      {"deepseek2", "q4_0"}, [](GgufBytes& g) { gguf_remove(g, "blk.1.attn_v_b.weight"); },
      {"blk.1.attn_kv_b.weight or blk.1.attn_k_b.weight with blk.1.attn_v_b.weight", "unknown   blk.1.attn_k_b"});
  expect_unlike({"deepseek2", "q4_0"},
                [](GgufBytes& g) {
                  g.at("blk.0.attn_k_b.weight").dims = {32, 64, 1};
                },
                {"shape     blk.0.attn_k_b.weight", "expected [2,32,32], file has [1,64,32]"});
  expect_unlike({"mixtral", "q4_0"},
                [](GgufBytes& g) {
                  g.at("blk.0.ffn_up_exps.weight").dims = {32, 64, 2};
                },
                {"expected [4,32,32], file has [2,64,32]"});
}

TEST(GgufEngine, ShardsAndSettings) {
  TempDir dir;
  const GgufBytes all = gguf_copy(GgufCase{"llama", "f16"}.path());
  for (int i = 0; i < 3; ++i) {
    GgufBytes g;
    if (i == 0) g.values = all.values;
    g.put("split.no", GgufBytes::u16, GgufBytes::raw(static_cast<uint16_t>(i)));
    g.put("split.count", GgufBytes::u16, GgufBytes::raw(uint16_t{3}));
    GgufBytes from = all;
    for (size_t t = 0; t < all.tensors.size(); ++t)  // the first shard has none
      if (i > 0 && t % 2 == static_cast<size_t>(i - 1))
        g.add(all.tensors[t].name, all.tensors[t].dims, all.tensors[t].type, gguf_data(from, all.tensors[t].name));
    dir.file("m-0000" + std::to_string(i + 1) + "-of-00003.gguf", g.bytes());
  }
  const std::string path = dir / "m-00001-of-00003.gguf";
  const Engine engine(path, gguf_options());
  expect_close(logits_of(engine, ids_of_case("llama")), golden_of({"llama", "f16"}), 1e-4, "shards");
  infer::EngineOptions o = gguf_options();
  o.set = {"rope_theta=3"};
  const auto other = logits_of(Engine(path, o), ids_of_case("llama"));
  EXPECT_GT(std::abs(other.back() - golden_of({"llama", "f16"}).back()), 1e-3);
}

// A directory as a file of architecture deepseek32, in the layout before attn_k_b, names as llama.cpp has them.
GgufBytes v32_metadata() {
  GgufBytes g;
  g.put("general.architecture", "deepseek32");
  for (const auto& [key, v] : std::vector<std::pair<const char*, int>>{{"block_count", 3},
                                                                       {"context_length", 2560},
                                                                       {"embedding_length", 64},
                                                                       {"feed_forward_length", 96},
                                                                       {"attention.head_count", 4},
                                                                       {"attention.q_lora_rank", 40},
                                                                       {"attention.kv_lora_rank", 32},
                                                                       {"attention.key_length", 24},
                                                                       {"attention.value_length", 16},
                                                                       {"rope.dimension_count", 8},
                                                                       {"rope.scaling.original_context_length", 64},
                                                                       {"expert_count", 16},
                                                                       {"expert_used_count", 4},
                                                                       {"expert_feed_forward_length", 24},
                                                                       {"expert_shared_count", 1},
                                                                       {"leading_dense_block_count", 1},
                                                                       {"expert_group_count", 4},
                                                                       {"expert_group_used_count", 2},
                                                                       {"expert_gating_func", 2},
                                                                       {"attention.indexer.head_count", 8},
                                                                       {"attention.indexer.key_length", 16},
                                                                       {"attention.indexer.top_k", 12}})
    g.put(std::string("deepseek32.") + key, v);
  for (const auto& [key, v] : std::vector<std::pair<const char*, double>>{{"attention.layer_norm_rms_epsilon", 1e-6},
                                                                          {"rope.scaling.factor", 40},
                                                                          {"rope.scaling.yarn_log_multiplier", 0.1},
                                                                          {"expert_weights_scale", 2.5}})
    g.put(std::string("deepseek32.") + key, v);
  g.put("deepseek32.rope.scaling.type", "yarn");
  g.put("deepseek32.expert_weights_norm", true);
  return g;
}
GgufBytes v32_file(const std::string& directory) {
  const io::SafetensorsFile f(directory + "/model.safetensors");
  GgufBytes g = v32_metadata();
  const auto add = [&](const std::string& ours, const std::string& theirs) {
    const io::TensorEntry* e = f.find(ours);
    if (e) g.add(theirs, {e->shape.rbegin(), e->shape.rend()}, 0, {reinterpret_cast<const char*>(e->data), e->bytes});
  };
  add("model.embed_tokens.weight", "token_embd.weight");
  add("model.norm.weight", "output_norm.weight");
  add("lm_head.weight", "output.weight");
  for (int i = 0; i < 3; ++i) {
    const std::string p = "model.layers." + std::to_string(i) + ".", blk = "blk." + std::to_string(i) + ".";
    for (const auto& [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
             {"input_layernorm.weight", "attn_norm.weight"},
             {"post_attention_layernorm.weight", "ffn_norm.weight"},
             {"self_attn.q_a_proj.weight", "attn_q_a.weight"},
             {"self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"},
             {"self_attn.q_b_proj.weight", "attn_q_b.weight"},
             {"self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight"},
             {"self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"},
             {"self_attn.kv_b_proj.weight", "attn_kv_b.weight"},
             {"self_attn.o_proj.weight", "attn_output.weight"},
             {"self_attn.indexer.wq_b.weight", "indexer.attn_q_b.weight"},
             {"self_attn.indexer.wk.weight", "indexer.attn_k.weight"},
             {"self_attn.indexer.k_norm.weight", "indexer.k_norm.weight"},
             {"self_attn.indexer.k_norm.bias", "indexer.k_norm.bias"},
             {"self_attn.indexer.weights_proj.weight", "indexer.proj.weight"},
             {"mlp.gate.weight", "ffn_gate_inp.weight"},
             {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"}})
      add(p + ours, blk + theirs);
    for (const std::string which : {"gate", "up", "down"}) {
      add(p + "mlp." + which + "_proj.weight", blk + "ffn_" + which + ".weight");
      add(p + "mlp.shared_experts." + which + "_proj.weight", blk + "ffn_" + which + "_shexp.weight");
      std::string stacked;
      std::vector<int64_t> shape;
      for (int e = 0; e < 16; ++e)
        if (const io::TensorEntry* t = f.find(p + "mlp.experts." + std::to_string(e) + "." + which + "_proj.weight")) {
          stacked += std::string(reinterpret_cast<const char*>(t->data), t->bytes);
          shape = t->shape;
        }
      if (!shape.empty())
        g.add(blk + "ffn_" + which + "_exps.weight",
              {static_cast<uint64_t>(shape[1]), static_cast<uint64_t>(shape[0]), 16}, 0, stacked);
    }
  }
  return g;
}

TEST(GgufEngine, SparseAttention) {
  const std::string directory = committed_dir() + "/cases/deepseek_v32";
  TempDir dir;
  std::vector<int32_t> ids(32);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 128);
  const Engine engine(dir.file("m.gguf", v32_file(directory).bytes()), gguf_options());
  EXPECT_EQ(engine.model().config.model_type, "deepseek_v32");
  expect_close(logits_of(engine, ids), logits_of(Engine(directory, gguf_options()), ids), 1e-6, "deepseek32");
}

}  // namespace
}  // namespace birkhoff::test
