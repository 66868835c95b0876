// The arithmetic of docs/plan.md on a model small enough to count by hand, and what the fewest machines must mean.
#include "lab/plan/plan.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "lab/plan/plan_report.h"
#include "model/config/inventory.h"
#include "model/config/presets.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

using lab::Split;
using nlohmann::json;

// One dense layer and one with 4 experts of width 8 on 16 channels; a step is 4 sequences of 32.
const json kSmall = {{"residual", "mhc"},
                     {"hc_mult", 2},
                     {"vocab_size", 256},
                     {"hidden_size", 16},
                     {"num_hidden_layers", 2},
                     {"num_attention_heads", 2},
                     {"kv_lora_rank", 8},
                     {"qk_nope_head_dim", 4},
                     {"qk_rope_head_dim", 4},
                     {"v_head_dim", 8},
                     {"intermediate_size", 32},
                     {"first_k_dense_replace", 1},
                     {"n_routed_experts", 4},
                     {"num_experts_per_tok", 2},
                     {"n_shared_experts", 1},
                     {"moe_intermediate_size", 8},
                     {"scoring_func", "sigmoid"},
                     {"topk_method", "noaux_tc"},
                     {"seq_len", 32},
                     {"batch_size", 4}};

train::RunConfig small(const std::vector<std::string>& set = {}) { return train::make_run_config(kSmall, set); }

lab::Cluster cluster(int64_t machines, double memory_bytes = 1e9) {
  lab::Cluster c;
  c.machine = {"a processor", 2, memory_bytes, 2e9, 1e9, 0.5};
  c.machines = machines;
  c.network_bytes = 1e6;
  return c;
}

// Masters and gradients of 4 experts: 3 * 16 * 8 weights each. bf16 panels are 16 columns of at least 32 rows: 1024
// bytes for each of [16, 16] and its transpose, [8, 16] and [16, 8].
constexpr size_t kExpertElements = 4 * 3 * 16 * 8, kExpertPanels = 4 * 4 * 1024;

TEST(Plan, ExpertBytes) {
  const lab::ExpertBytes e = lab::Planner(small(), cluster(1)).expert_bytes();
  EXPECT_EQ(e.weights, 4 * kExpertElements + kExpertPanels);
  EXPECT_EQ(e.gradients, 4 * kExpertElements);
  EXPECT_EQ(e.optimizer, 8 * kExpertElements);
  const lab::ExpertBytes frozen = lab::Planner(small({"trainable=self_attn"}), cluster(1)).expert_bytes();
  EXPECT_EQ(frozen.weights, e.weights);
  EXPECT_EQ(frozen.gradients, 0u);
  EXPECT_EQ(frozen.optimizer, 0u);
}

TEST(Plan, OneMachine) {
  const train::RunConfig c = small();
  const lab::Plan p = lab::Planner(c, cluster(1)).plan(1000);
  EXPECT_EQ(p.tokens_per_step, 4 * 32);
  EXPECT_EQ(p.steps, 8);  // 7 would be 896 tokens
  EXPECT_EQ(p.total_parameters, model::take_inventory(c.model).total);
  EXPECT_EQ(p.checkpoint_bytes, 4.0 * static_cast<double>(3 * p.total_parameters));
  ASSERT_EQ(p.splits.size(), 1u);
  const lab::SplitPlan& s = p.splits[0];
  const model::MemoryPlan run = train::plan_run(c, 2);
  EXPECT_EQ(s.memory.total(), run.total());
  EXPECT_TRUE(s.fits);
  EXPECT_EQ(s.rows, 4);
  EXPECT_EQ(s.part_rows, 4);
  EXPECT_STREQ(name_of(s.recompute), "none");
  // 6 operations a weight in products: two attentions (q 16 x 16, latent 16 x 12, up 8 x 24, out 16 x 16), dense 3 x 16
  // x 32, two experts and a shared one 3 x 16 x 8 each, router 16 x 4, head 16 x 256; scores 2 heads x (8 + 8) a key,
  // of (32 + 1) / 2 keys, twice.
  const double products = 2 * (256 + 192 + 192 + 256) + 1536 + 3 * 384 + 64 + 4096, scores = 2 * 2 * 16 * 33 / 2.0;
  EXPECT_DOUBLE_EQ(p.flops_per_token, 6 * (products + scores));
  EXPECT_DOUBLE_EQ(s.compute_seconds, 128 * p.flops_per_token / (2e9 * 0.5));
  EXPECT_DOUBLE_EQ(s.optimizer_seconds, 2.0 * static_cast<double>(run.weights + run.gradients + run.optimizer) / 1e9);
  EXPECT_EQ(s.network_seconds, 0);
  EXPECT_EQ(s.gradient_bytes, 0);
  EXPECT_EQ(s.token_bytes, 0);
}

TEST(Plan, WhatEachSplitDivides) {
  lab::Planner planner(small(), cluster(2));
  const model::MemoryPlan whole = planner.on({}, 1).memory;
  const lab::SplitPlan data = planner.on({false, false}, 2), moments = planner.on({false, true}, 2),
                       experts = planner.on({true, false}, 2), both = planner.on({true, true}, 2);
  for (const lab::SplitPlan* s : {&data, &moments, &experts, &both}) {
    EXPECT_EQ(s->rows, 2);
    EXPECT_LT(s->memory.kept, whole.kept);  // of two sequences instead of four
    EXPECT_EQ(s->memory.kept, data.memory.kept);
  }
  EXPECT_EQ(data.memory.weights, whole.weights);
  EXPECT_EQ(data.memory.gradients, whole.gradients);
  EXPECT_EQ(data.memory.optimizer, whole.optimizer);
  EXPECT_EQ(moments.memory.weights, whole.weights);
  EXPECT_EQ(moments.memory.optimizer, whole.optimizer / 2);
  EXPECT_EQ(experts.memory.weights, whole.weights - (4 * kExpertElements + kExpertPanels) / 2);
  EXPECT_EQ(experts.memory.gradients, whole.gradients - 4 * kExpertElements / 2);
  EXPECT_EQ(experts.memory.optimizer, whole.optimizer - 8 * kExpertElements / 2);
  EXPECT_EQ(both.memory.optimizer, (whole.optimizer - 8 * kExpertElements) / 2 + 8 * kExpertElements / 2);
  // Three machines: the busiest has two of the four sequences, and two of the four experts.
  const lab::SplitPlan three = planner.on({true, false}, 3);
  EXPECT_EQ(three.rows, 2);
  EXPECT_EQ(three.memory.weights, experts.memory.weights);
}

TEST(Plan, Traffic) {
  lab::Planner planner(small(), cluster(4));
  const double all = static_cast<double>(4 * model::take_inventory(small().model).total);
  const lab::SplitPlan data = planner.on({}, 4), experts = planner.on({true, false}, 4);
  EXPECT_DOUBLE_EQ(data.gradient_bytes, 2 * 0.75 * all);
  EXPECT_EQ(data.token_bytes, 0);
  EXPECT_DOUBLE_EQ(data.network_seconds, data.gradient_bytes / 1e6);
  EXPECT_DOUBLE_EQ(experts.gradient_bytes, 2 * 0.75 * (all - 4.0 * kExpertElements));
  // One layer, 32 tokens to 2 experts each, 16 channels of 2 bytes, there and back, forward and backward; three of four
  // leave the machine.
  EXPECT_DOUBLE_EQ(experts.token_bytes, 0.75 * 32 * 2 * 16 * 2 * 2 * 2);
  EXPECT_DOUBLE_EQ(experts.network_seconds, (experts.gradient_bytes + experts.token_bytes) / 1e6);
  EXPECT_DOUBLE_EQ(lab::Planner(small({"dtype=fp32"}), cluster(4)).on({true, false}, 4).token_bytes,
                   2 * experts.token_bytes);
  // Recomputing sends the tokens of forward again, and costs a forward more.
  const lab::SplitPlan again = lab::Planner(small({"recompute=layer"}), cluster(4)).on({true, false}, 4);
  EXPECT_DOUBLE_EQ(again.token_bytes, 1.5 * experts.token_bytes);
  EXPECT_DOUBLE_EQ(again.compute_seconds, experts.compute_seconds * 4 / 3);
}

// Muon's products: ten times 4 a^2 b + 2 a^3 for every matrix, at the rate of forward and backward. Frozen matrices
// cost nothing.
TEST(Plan, Muon) {
  const auto products = [](double a, double b) { return 10 * (4 * a * a * b + 2 * a * a * a); };
  const std::string one = "trainable=layers\\.1\\.mlp\\.experts\\.[01]\\.(gate|up|down)_proj";
  const auto seconds = [&](const std::string& optimizer, const Split& split, int64_t machines) {
    return lab::Planner(small({one, "optimizer=" + optimizer}), cluster(4)).on(split, machines).optimizer_seconds;
  };
  const double all = 6 * products(8, 16) / (2e9 * 0.5);
  const auto extra = [&](const Split& split, int64_t machines) {
    return seconds("muon", split, machines) - seconds("adamw", split, machines);
  };
  EXPECT_NEAR(extra({}, 1), all, 1e-9 * all);
  EXPECT_NEAR(extra({}, 4), all, 1e-9 * all);
  EXPECT_NEAR(extra({false, true}, 4), all / 4, 1e-9 * all);
  EXPECT_NEAR(extra({true, false}, 4), all / 4, 1e-9 * all);
  EXPECT_NEAR(extra({true, true}, 2), all / 2, 1e-9 * all);
}

TEST(Plan, LessAtATimeBeforeMoreMachines) {
  const auto total = [](const std::vector<std::string>& set) {
    return static_cast<double>(train::plan_run(small(set), 2).total());
  };
  const double four = total({}), one = total({"grad_accum=4"}), layer = total({"grad_accum=4", "recompute=layer"});
  ASSERT_LT(layer, one);
  ASSERT_LT(one, four);
  const auto on_one = [](double memory) { return lab::Planner(small(), cluster(1, memory)).on({}, 1); };
  const struct {
    double memory, needs;
    int64_t rows;
    model::Recompute recompute;
    bool fits;
  } cases[] = {{four, four, 4, model::Recompute::none, true},
               {four - 1, one, 1, model::Recompute::none, true},
               {one - 1, layer, 1, model::Recompute::layer, true},
               {layer - 1, layer, 1, model::Recompute::layer, false}};
  for (const auto& want : cases) {
    const lab::SplitPlan s = on_one(want.memory);
    EXPECT_EQ(static_cast<double>(s.memory.total()), want.needs);
    EXPECT_EQ(s.part_rows, want.rows);
    EXPECT_EQ(s.recompute, want.recompute);
    EXPECT_EQ(s.fits, want.fits);
  }
}

// One machine fewer does not hold it, at any memory between what everything needs and nothing.
TEST(Plan, FewestMachinesIsMinimal) {
  const train::RunConfig c = small({"n_routed_experts=32", "batch_size=64", "moe_intermediate_size=64"});
  int64_t more_than_one = 0, never = 0;
  for (double memory = static_cast<double>(train::plan_run(c, 2).total()); memory > 17e6; memory *= 0.98) {
    lab::Planner planner(c, cluster(1, memory));
    for (const Split split : {Split{false, false}, Split{false, true}, Split{true, false}, Split{true, true}}) {
      SCOPED_TRACE(lab::name_of(split));
      const int64_t m = planner.fewest_machines(split);
      if (m == 0) {
        ++never;
        EXPECT_FALSE(planner.on(split, planner.limit(split)).fits);
        continue;
      }
      EXPECT_TRUE(planner.on(split, m).fits);
      more_than_one += m > 1;
      if (m > 1) {
        EXPECT_FALSE(planner.on(split, m - 1).fits) << m;
      }
    }
  }
  EXPECT_GT(more_than_one, 5);
  EXPECT_GT(never, 5);
}

TEST(Plan, TheBiggestModelOfThePaperNeedsItsExpertsDivided) {
  const train::RunConfig c = train::make_run_config(json::parse(model::find_preset("mhc-27b").json), {});
  lab::Planner planner(c, cluster(1, 256.0 * (1 << 30)));
  EXPECT_EQ(planner.fewest_machines({}), 0);  // 20 bytes a parameter alone are more
  EXPECT_EQ(planner.limit({true, false}), 72);
  const int64_t m = planner.fewest_machines({true, false});
  EXPECT_GT(m, 1);
  EXPECT_LE(m, 8);
  EXPECT_GT(planner.on({true, false}, m).token_bytes, 0);
}

TEST(Plan, Refuses) {
  try {
    lab::Planner(small(), cluster(5)).plan(1000);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("machines: 5 are more than the sequences of a step, batch_size 4"),
              std::string::npos);
    EXPECT_FALSE(e.hint().empty());
  }
}

// Splits over more machines than experts are left out, not planned wrongly.
TEST(Plan, MoreMachinesThanExperts) {
  const lab::Plan p = lab::Planner(small({"batch_size=8"}), cluster(8)).plan(1000);
  ASSERT_EQ(p.splits.size(), 2u);
  for (const lab::SplitPlan& s : p.splits) EXPECT_FALSE(s.split.experts);
}

TEST(Plan, JsonHasEveryFigure) {
  lab::Planner planner(small(), cluster(2));
  const lab::Plan p = planner.plan(1000);
  const json j = lab::to_json(p);
  ASSERT_EQ(j["splits"].size(), 4u);
  EXPECT_EQ(j["steps"], 8);
  EXPECT_EQ(j["splits"][2]["split"], "experts");
  EXPECT_EQ(j["splits"][2]["sent_bytes_per_step"]["tokens"], p.splits[2].token_bytes);
  EXPECT_EQ(j["splits"][0]["memory_bytes"]["total"], p.splits[0].memory.total());
  EXPECT_DOUBLE_EQ(j["splits"][0]["run_s"], 8 * p.splits[0].step_seconds());
  EXPECT_EQ(j["smallest"][0]["machines"], 1);
  const std::string text = lab::describe(p);
  for (const char* part : {"1 K tokens are 8 steps of 128", "2 machines", "experts, moments", "Gbit/s", "checkpoint"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
}

}  // namespace
}  // namespace birkhoff::test
