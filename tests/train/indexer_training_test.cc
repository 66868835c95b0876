// The stages of indexers in training (models.md F.2): what moves and what stands still, under every recompute policy
// and number of threads.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "report/run_data.h"
#include "support/batches.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/run_training.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

train::RunConfig run_config(const std::string& stage, bool v4 = false) {
  train::RunConfig c;
  c.model = v4 ? wide_v4_config() : wide_config("plain");
  if (!v4) c.model.index_n_heads = 3, c.model.index_head_dim = 16, c.model.index_topk = 12;
  model::validate(c.model);
  c.train.seq_len = 80, c.train.batch_size = 4, c.train.grad_accum = 2;
  c.train.dtype = DType::f32, c.train.indexer_stage = model::named<train::IndexerStage>("indexer_stage", stage);
  c.train.lr = 3e-3, c.train.steps = 20;
  return c;
}

struct Trained {
  std::vector<double> losses, indexer;
  std::vector<float> before, after;
  std::vector<model::ParameterInfo> parameters;
  bool operator==(const Trained& o) const { return losses == o.losses && indexer == o.indexer && after == o.after; }
  // Names of tensors that moved.
  bool moved(const model::ParameterInfo& p) const {
    return std::memcmp(before.data() + p.offset, after.data() + p.offset,
                       static_cast<size_t>(p.size()) * sizeof(float)) != 0;
  }
};

Trained train_steps(const train::RunConfig& c, int threads, int steps) {
  train::TrainState state(c, threads);
  state.initialise();
  Trained r;
  r.parameters = state.model().parameters;
  r.before.assign(state.model().block, state.model().block + model::parameter_elements(r.parameters));
  for (int i = 0; i < steps; ++i) {
    const int64_t rows = c.train.batch_size / c.train.grad_accum;
    std::vector<data::Batch> parts;
    for (int64_t p = 0; p < c.train.grad_accum; ++p)
      parts.push_back(batch(static_cast<uint64_t>(i * c.train.grad_accum + p), rows, c.train.seq_len));
    const train::StepOutcome s = take_step(state, i, parts);
    r.losses.push_back(s.loss);
    if (s.indexer_loss) r.indexer.push_back(*s.indexer_loss);
  }
  r.after.assign(state.model().block, state.model().block + model::parameter_elements(r.parameters));
  return r;
}

bool of_indexer(const std::string& name) { return name.find(".indexer.") != std::string::npos; }

TEST(IndexerTraining, WarmUpMovesIndexersAlone) {
  const Trained r = train_steps(run_config("dense"), 2, 15);
  for (const auto& p : r.parameters) EXPECT_EQ(r.moved(p), of_indexer(p.name)) << p.name;
  ASSERT_EQ(r.indexer.size(), 15u);
  EXPECT_LT(r.indexer.back(), 0.8 * r.indexer.front());
  EXPECT_GT(r.indexer.back(), 0);
}

// V4: the indexers of its CSA layers learn over the compressed entries a token sees.
TEST(IndexerTraining, V4Stages) {
  // Its queries are normalised, so attention is far from uniform over the contents of random batches from the start:
  // the KL of a batch differs from the next one's by a tenth, and falls by as much only in some forty steps.
  train::RunConfig warm_up = run_config("dense", true);
  warm_up.train.lr = 1e-2, warm_up.train.steps = 80;
  const Trained dense = train_steps(warm_up, 2, 80);
  for (const auto& p : dense.parameters) EXPECT_EQ(dense.moved(p), of_indexer(p.name)) << p.name;
  ASSERT_EQ(dense.indexer.size(), 80u);
  const auto sum = [&](size_t first) {
    return std::accumulate(dense.indexer.begin() + static_cast<std::ptrdiff_t>(first),
                           dense.indexer.begin() + static_cast<std::ptrdiff_t>(first + 10), 0.0);
  };
  EXPECT_LT(sum(70), 0.85 * sum(0));
  EXPECT_GT(sum(70), 0);
  const Trained sparse = train_steps(run_config("sparse", true), 2, 20);
  for (const auto& p : sparse.parameters)
    EXPECT_EQ(sparse.moved(p), p.role != layers::Role::router_bias && p.role != layers::Role::expert_table) << p.name;
  EXPECT_LT(sparse.losses.back(), 0.8 * sparse.losses.front());
  ASSERT_EQ(sparse.indexer.size(), 20u);
  const Trained off = train_steps(run_config("off", true), 2, 3);
  for (const auto& p : off.parameters)
    if (of_indexer(p.name)) {
      EXPECT_FALSE(off.moved(p)) << p.name;
    }
}

TEST(IndexerTraining, SparseStageMovesEverything) {
  const Trained r = train_steps(run_config("sparse"), 2, 20);
  for (const auto& p : r.parameters) EXPECT_TRUE(r.moved(p) || p.role == layers::Role::router_bias) << p.name;
  EXPECT_LT(r.losses.back(), 0.8 * r.losses.front());
  ASSERT_EQ(r.indexer.size(), 20u);
}

TEST(IndexerTraining, OffLeavesIndexersAlone) {
  const Trained off = train_steps(run_config("off"), 2, 4);
  for (const auto& p : off.parameters)
    EXPECT_EQ(off.moved(p), !of_indexer(p.name) && p.role != layers::Role::router_bias) << p.name;
  EXPECT_TRUE(off.indexer.empty());
}

TEST(IndexerTraining, TheSameBitsForAnyThreadsAndPolicy) {
  for (const bool v4 : {false, true})
    for (const char* stage : {"dense", "sparse"}) {
      const Trained one = train_steps(run_config(stage, v4), 1, 4);
      EXPECT_TRUE(train_steps(run_config(stage, v4), 3, 4) == one) << stage;
      for (const auto policy : {model::Recompute::site, model::Recompute::layer}) {
        train::RunConfig c = run_config(stage, v4);
        c.train.recompute = policy;
        EXPECT_TRUE(train_steps(c, 2, 4) == one) << stage << " recompute " << name_of(policy);
      }
    }
}

// The recipe of the paper: one run, resumed with another stage. Its config.json is that of the released type.
TEST(IndexerTraining, AStageFollowsAnotherInOneRun) {
  TempDir dir;
  std::string text;
  for (int i = 0; i < 4000; ++i) text += "line " + std::to_string(i) + "\n";
  train::TrainOptions o;
  o.settings_base = {{"hidden_size", 32},
                     {"num_attention_heads", 2},
                     {"kv_lora_rank", 16},
                     {"q_lora_rank", 16},
                     {"qk_nope_head_dim", 8},
                     {"qk_rope_head_dim", 8},
                     {"v_head_dim", 8},
                     {"intermediate_size", 32},
                     {"n_routed_experts", 4},
                     {"num_experts_per_tok", 2},
                     {"moe_intermediate_size", 16},
                     {"scoring_func", "sigmoid"},
                     {"topk_method", "noaux_tc"},
                     {"norm_topk_prob", true},
                     {"index_topk", 4},
                     {"index_n_heads", 2},
                     {"index_head_dim", 16},
                     {"seq_len", 32},
                     {"batch_size", 2},
                     {"steps", 2}};
  o.data = {dir.file("text.txt", text)}, o.out = dir / "run", o.quiet = true;
  std::atomic<bool> stop = false;
  ASSERT_EQ(train::run_training(o, stop), 0);
  EXPECT_EQ(nlohmann::json::parse(read_file(dir / "run/config.json"))["model_type"], "deepseek_v32");
  o.settings_base = nlohmann::json::object();
  o.settings_set = {"steps=4", "indexer_stage=dense"};
  o.resume = true;
  ASSERT_EQ(train::run_training(o, stop), 0);
  const auto config = nlohmann::json::parse(read_file(dir / "run/config.json"));
  EXPECT_EQ(config["model_type"], "deepseek_v32");
  EXPECT_EQ(config["training"]["indexer_stage"], "dense");
  EXPECT_EQ(report::read_metrics(dir / "run/metrics.jsonl").size(), 4u);
  o.settings_set = {"index_topk=5"};
  expect_error([&] { train::run_training(o, stop); }, {"index_topk", "4", "5", "cannot change"});
  // A new run may select more or fewer; whether there are indexers comes with the weights.
  o.resume = false, o.init = dir / "run", o.out = dir / "sparser";
  o.settings_set = {"index_topk=2", "steps=1", "seq_len=32", "batch_size=2"};
  ASSERT_EQ(train::run_training(o, stop), 0);
  EXPECT_EQ(nlohmann::json::parse(read_file(dir / "sparser/config.json"))["index_topk"], 2);
  o.out = dir / "none", o.settings_set = {"index_topk=0"};
  expect_error([&] { train::run_training(o, stop); }, {"index_topk", "4", "0"});
}

TEST(IndexerTraining, SettingsAreChecked) {
  const nlohmann::json base = {{"kv_lora_rank", 16},    {"q_lora_rank", 16},  {"qk_nope_head_dim", 8},
                               {"qk_rope_head_dim", 8}, {"v_head_dim", 8},    {"intermediate_size", 32},
                               {"index_topk", 4},       {"index_n_heads", 2}, {"index_head_dim", 16}};
  const auto make = [&](std::vector<std::string> set) { return train::make_run_config(base, set); };
  EXPECT_TRUE(make({}).train.indexer().learns);
  EXPECT_TRUE(make({"indexer_stage=dense"}).train.indexer().dense);
  EXPECT_FALSE(make({"indexer_stage=off"}).train.indexer().learns);
  expect_error([&] { make({"indexer_stage=warm"}); }, {"indexer_stage", "warm", "off, dense, sparse"});
  expect_error([&] { make({"indexer_kl=0"}); }, {"indexer_kl", "0"});
  expect_error([&] { make({"indexer_stage=dense", "index_topk=0"}); }, {"indexer_stage", "index_topk"});
  expect_error([&] { make({"index_n_heads=0"}); }, {"index_n_heads", "0"});
  expect_error([&] { make({"index_head_dim=4"}); }, {"index_head_dim", "4", "qk_rope_head_dim 8"});
  expect_error([&] { make({"q_lora_rank=0"}); }, {"q_lora_rank"});
  expect_error([&] { make({"kv_lora_rank=0"}); }, {"index_topk", "kv_lora_rank"});
}

}  // namespace
}  // namespace birkhoff::test
