// A trained adapter: beside the weights of its base, merged into them, and as other programs read it.
#include "checkpoint/adapter.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_directory.h"
#include "infer/session.h"
#include "io/json_file.h"
#include "support/temp_dir.h"
#include "train/further_runs.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;

// A base model, an adapter trained over it, and the weights that both make together.
class Adapter : public testing::Test {
 protected:
  void make(const std::string& targets) {
    train::RunConfig c = lora_config(targets);
    train::TrainState s(c, 2);
    s.initialise();
    fs::create_directories(base);
    checkpoint::save_weights(base, s.model(), model::config_to_json(c.model), f32_t);
    steps(s, 0, 12);
    checkpoint_ = save(s, run, 12);
    fs::create_directories(merged);
    for (const auto& p : s.model().parameters) merge(s, p);
    checkpoint::save_weights(merged, s.model(), model::config_to_json(c.model), f32_t);
    for (int i = 0; i < 40; ++i) ids.push_back(static_cast<int32_t>(Rng(8).bits(static_cast<uint64_t>(i)) % 23));
  }
  static void merge(train::TrainState& s, const model::ParameterInfo& p) {
    const std::string module = p.name.substr(0, p.name.rfind('.'));
    const auto *a = s.trainable().find(module + ".lora_A.weight"), *b = s.trainable().find(module + ".lora_B.weight");
    if (!a) return;
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t k = 0; k < p.cols; ++k) {
        double sum = 0;
        for (int64_t j = 0; j < 3; ++j) sum += static_cast<double>(b->weight[r * 3 + j]) * a->weight[j * p.cols + k];
        s.model().block[p.offset + r * p.cols + k] += static_cast<float>(2 * sum);
      }
  }
  std::vector<double> logits(const std::string& model, const std::string& adapter = "") const {
    infer::EngineOptions o;
    o.compute = "fp32", o.threads = 2, o.max_positions = 64, o.adapter = adapter;
    const infer::Engine engine(model, o);
    std::vector<double> out;
    engine.full_logits(ids,
                       [&](int64_t, std::span<const float> row) { out.insert(out.end(), row.begin(), row.end()); });
    infer::Session session(engine, 64);
    std::span<const float> last;
    for (const int32_t id : ids) last = session.feed({&id, 1});
    const std::vector<double> fed(last.begin(), last.end()),
        full(out.end() - static_cast<std::ptrdiff_t>(last.size()), out.end());
    expect_close(fed, full, 1e-4 * largest(full), "through the cache");
    return out;
  }
  TempDir dir;
  std::string base = dir / "base", run = dir / "run", merged = dir / "merged", checkpoint_;
  std::vector<int32_t> ids;
};

TEST_F(Adapter, BesideTheWeightsIsAsMergedIntoThem) {
  for (const char* targets : {"", "kv_b_proj,experts"}) {
    SCOPED_TRACE(targets);
    ids.clear();
    for (const auto& d : {base, run, merged}) fs::remove_all(d);
    make(targets);
    const auto want = logits(merged), without = logits(base);
    // Two fp32 computations of one network of two layers: some ten roundings of each hidden value.
    const double limit = 64 * 0x1p-24 * largest(want) * std::sqrt(20.0);
    expect_close(logits(base, run), want, limit, "adapter of the run over the base");
    expect_close(logits(base, checkpoint_ + "/adapter"), want, limit, "adapter directory over the base");
    expect_close(logits(run), want, limit, "the run itself");
    double moved = 0;
    for (size_t i = 0; i < want.size(); ++i) moved = std::max(moved, std::abs(want[i] - without[i]));
    EXPECT_GT(moved, 100 * limit) << "an adapter that does nothing proves nothing";
  }
}

TEST_F(Adapter, MergingGivesTheSumOfBoth) {
  make("q_b_proj,experts");
  const train::RunConfig c = further_config();
  train::TrainState got(c, 1), want(c, 1);
  checkpoint::load_weights(base, got.model());
  checkpoint::load_weights(merged, want.model());
  const checkpoint::AdapterFiles adapter(run, c.model);
  int changed = 0;
  for (const auto& p : got.model().parameters) {
    for (int64_t first = 0; first < p.rows; first += 7)  // in pieces
      changed += adapter.add_to(
          p.name, first,
          Mat(got.model().block + p.offset + first * p.cols, f32_t, std::min<int64_t>(7, p.rows - first), p.cols));
    const float *g = got.model().block + p.offset, *w = want.model().block + p.offset;
    expect_close({g, g + p.size()}, {w, w + p.size()}, 0x1p-23, p.name);
  }
  EXPECT_GT(changed, 0);
}

TEST_F(Adapter, IsWrittenAsPeftReadsIt) {
  make("q_b_proj,gate_proj,experts");
  const nlohmann::json j = io::read_json(run + "/adapter/adapter_config.json");
  EXPECT_EQ(j["peft_type"], "LORA");
  EXPECT_EQ(j["r"], 3);
  EXPECT_EQ(j["lora_alpha"], 6);
  EXPECT_EQ(j["base_model_name_or_path"], "base");
  EXPECT_EQ(j["target_modules"], (std::vector<std::string>{"q_b_proj"}))
      << "PEFT takes any gate_proj of a model with experts for theirs";
  EXPECT_EQ(j["target_parameters"],
            (std::vector<std::string>{"mlp.gate_proj.weight", "shared_experts.gate_proj.weight"}))
      << "gate_proj.weight alone would reach the experts";
  const io::SafetensorsFile file(run + "/adapter/adapter_model.safetensors");
  const auto* e = file.find("base_model.model.model.layers.0.self_attn.q_b_proj.lora_A.weight");
  ASSERT_TRUE(e);
  EXPECT_EQ(e->shape, (std::vector<int64_t>{3, 11}));
  EXPECT_FALSE(file.find("base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight"));
  EXPECT_TRUE(io::SafetensorsFile(run + "/adapter/expert_adapters.safetensors")
                  .find("base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight"));
}

TEST_F(Adapter, WhatDoesNotFitIsRefusedByName) {
  make("q_b_proj,o_proj");
  const std::string other = dir / "other";
  const Exec exec(1);
  model::ModelConfig c = small_config();
  c.q_lora_rank = 12;
  SmallModel wide(c, f32_t, 1, exec);
  fs::create_directories(other);
  checkpoint::save_weights(other, *wide.m, model::config_to_json(wide.m->config), f32_t);
  EXPECT_NE(error_of([&] { logits(other, run); }).find("expected [3,12], file has [3,11]"), std::string::npos);

  const auto with = [&](const char* key, const nlohmann::json& value) {
    const std::string copy = dir / "copy";
    fs::remove_all(copy);
    fs::copy(fs::canonical(run + "/adapter"), copy);
    nlohmann::json j = io::read_json(copy + "/adapter_config.json");
    j[key] = value;
    io::write_json(copy + "/adapter_config.json", j);
    return error_of([&] { logits(base, copy); });
  };
  EXPECT_NE(with("r", 0).find("a rank of 1 to"), std::string::npos);
  EXPECT_NE(with("r", int64_t{1} << 62).find("a rank of 1 to"), std::string::npos);
  EXPECT_NE(with("use_dora", true).find("use_dora"), std::string::npos);
  EXPECT_NE(with("target_parameters", {"mlp.experts.gate_up_proj"}).find("target_parameters"), std::string::npos);
  EXPECT_NE(with("peft_type", "IA3").find("IA3"), std::string::npos);
  EXPECT_NE(with("r", 4).find("expected [4,"), std::string::npos) << "the matrices have rank 3";
  EXPECT_EQ(with("lora_dropout", 0.1), "") << "of training only";
  EXPECT_NE(error_of([&] { logits(base, base); }).find("adapter_config.json"), std::string::npos);
}

}  // namespace
}  // namespace birkhoff::test
