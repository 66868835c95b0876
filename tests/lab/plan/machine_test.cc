#include "lab/plan/machine.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/config/inventory.h"
#include "model/config/presets.h"
#include "support/sanitized.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

train::RunConfig preset(const std::string& name, const std::vector<std::string>& set = {}) {
  return train::make_run_config(json::parse(model::find_preset(name).json), set);
}

TEST(Machine, SlicesKeepTheShapes) {
  const train::RunConfig c = preset("tiny"), s = lab::slice_of(c);
  EXPECT_EQ(s.model.num_hidden_layers, 1);
  EXPECT_TRUE(s.model.is_moe_layer(0));  // as most layers of the model
  EXPECT_EQ(s.model.vocab_size, 4096 / 6);
  EXPECT_EQ(s.model.hidden_size, c.model.hidden_size);
  EXPECT_EQ(s.model.n_routed_experts, c.model.n_routed_experts);  // the step is short enough to be taken whole
  EXPECT_EQ(s.train.batch_size, 8);
  EXPECT_EQ(s.train.seq_len, 256);
  const train::RunConfig big = lab::slice_of(preset("mhc-3b", {"grad_accum=320"}));
  EXPECT_EQ(big.model.hidden_size, 1280);
  EXPECT_EQ(big.model.moe_intermediate_size, 896);
  EXPECT_EQ(big.model.vocab_size, 129280 / 12);
  EXPECT_EQ(big.train.batch_size, 1);
  EXPECT_LT(big.train.seq_len, 4096);
  EXPECT_EQ(big.model.n_routed_experts, 6);  // a token's own are the fewest
  EXPECT_LE(model::model_flops(big.model, 1, big.train.seq_len), 40e9);
  const train::RunConfig halved = lab::slice_of(preset("mhc-27b"));
  EXPECT_EQ(halved.model.hidden_size, 1280);
  EXPECT_EQ(halved.model.num_attention_heads, 16);
  EXPECT_EQ(halved.model.moe_intermediate_size, 1536);
  const train::RunConfig dense = lab::slice_of(preset("llm-7b"));
  EXPECT_FALSE(dense.model.is_moe_layer(0));
}

// Every preset has a slice that is a valid run of its own, of a size that any machine holds.
TEST(Machine, EveryPresetHasASlice) {
  for (const model::Preset& p : model::presets()) {
    SCOPED_TRACE(p.name);
    const train::RunConfig s = lab::slice_of(train::make_run_config(json::parse(p.json), {}));
    const train::RunConfig again =
        train::run_config_from_json(train::run_config_to_json(s));  // checks ranges and contradictions
    EXPECT_EQ(again.model.hidden_size, s.model.hidden_size);
    EXPECT_LE(model::take_inventory(s.model).total, 80'000'000);
    EXPECT_LT(train::plan_run(s, 2).total(), size_t{2} << 30);
  }
}

TEST(Machine, SlicesTrainEverything) {
  const train::RunConfig s =
      lab::slice_of(preset("tiny", {"lora.rank=4", "trainable=layers\\.5", "grad_accum=2", "recompute=layer"}));
  EXPECT_EQ(s.train.trainable, "");
  EXPECT_EQ(s.train.lora_rank, 0);
  EXPECT_STREQ(name_of(s.train.recompute), "none");
  EXPECT_EQ(lab::slice_of(preset("v4-flash")).train.optimizer, train::Optimizer::adamw);
  EXPECT_EQ(s.train.batch_size, 4);
  EXPECT_EQ(s.train.grad_accum, 1);
}

TEST(Machine, Measured) {
  if (sanitized()) GTEST_SKIP() << "repeats a training step until its time settles; steps are watched elsewhere";
  const lab::Machine m = lab::measure_machine(preset("demo", {"batch_size=1", "seq_len=64"}), 1);
  EXPECT_EQ(m.cores, 1);
  EXPECT_GT(m.memory_bytes, 1e8);
  EXPECT_GT(m.flops, 1e8);
  EXPECT_GT(m.read_bytes, 1e8);
  EXPECT_GT(m.efficiency, 0);
  EXPECT_LT(m.efficiency, 1.2);
}

TEST(Machine, Json) {
  const lab::Machine m{"a processor", 4, 8.0 * (1 << 30), 3e11, 2e10, 0.25};
  const lab::Machine back = lab::machine_from_json(lab::to_json(m), "figures.json");
  EXPECT_EQ(back.cpu, m.cpu);
  EXPECT_EQ(back.cores, 4);
  EXPECT_DOUBLE_EQ(back.memory_bytes, m.memory_bytes);
  EXPECT_DOUBLE_EQ(back.flops, m.flops);
  EXPECT_DOUBLE_EQ(back.read_bytes, m.read_bytes);
  EXPECT_DOUBLE_EQ(back.efficiency, m.efficiency);
  const auto refused = [&](const char* key, const json& value, const std::string& says) {
    json j = lab::to_json(m);
    if (value.is_null())
      j.erase(key);
    else
      j[key] = value;
    try {
      lab::machine_from_json(j, "figures.json");
      ADD_FAILURE() << key;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("figures.json: " + says), std::string::npos) << e.what();
    }
  };
  refused("efficiency", nullptr, "efficiency: expected a number, is missing");
  refused("gemm_gflops", "fast", "gemm_gflops: expected a number, is \"fast\"");
  refused("read_gbs", -3, "read_gbs: must be positive, is -3");
  refused("cores", 0, "cores: must be positive, is 0");
  EXPECT_THROW(lab::machine_from_json(json(), "figures.json"), Error);
}

}  // namespace
}  // namespace birkhoff::test
