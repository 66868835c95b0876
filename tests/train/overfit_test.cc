// Every model type learns one batch by heart.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "support/batches.h"
#include "support/places.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

// One row of two documents, one row of one: what follows a token is random, so that only memory helps.
data::Batch one_batch(int64_t vocabulary) {
  constexpr int64_t kLength = 24;
  data::Batch b;
  b.rows = 2, b.seq_len = kLength;
  const Rng rng(4, 0);
  for (uint64_t t = 0; t < 2 * kLength; ++t)
    b.ids.push_back(static_cast<int32_t>(rng.bits(t) % static_cast<uint64_t>(vocabulary)));
  b.labels.assign(b.ids.begin() + 1, b.ids.end());
  b.labels.push_back(kIgnoreLabel);
  b.labels[9] = b.labels[kLength - 1] = kIgnoreLabel;
  const Packed at(2 * kLength, {0, 10, kLength}, {0, kLength});
  b.position = at.position, b.first_key = at.first_key, b.segment_start = at.segment_start,
  b.sequence_start = at.sequence_start;
  return b;
}

json settings(const json& more) {
  json j = {{"vocab_size", 61},
            {"hidden_size", 48},
            {"num_hidden_layers", 2},
            {"num_attention_heads", 4},
            {"intermediate_size", 96},
            {"initializer_range", 0.1},
            {"seq_len", 24},
            {"batch_size", 2},
            {"steps", 150},
            {"lr", 5e-3},
            {"warmup_steps", 5},
            {"schedule", "constant"},
            {"weight_decay", 0.0},
            {"dtype", "fp32"}};
  j.update(more);
  return j;
}

const json kGqa = {{"num_key_value_heads", 2}, {"head_dim", 12}};
const json kMla = {{"kv_lora_rank", 16}, {"qk_nope_head_dim", 12}, {"qk_rope_head_dim", 8}, {"v_head_dim", 12}};
const json kExperts = {{"n_routed_experts", 8}, {"num_experts_per_tok", 3}, {"moe_intermediate_size", 24}};
const json kV3 = {{"scoring_func", "sigmoid"}, {"topk_method", "noaux_tc"}, {"n_group", 4},
                  {"topk_group", 2},           {"norm_topk_prob", true},    {"n_shared_experts", 1},
                  {"first_k_dense_replace", 1}};

json merged(std::initializer_list<json> parts) {
  json j = json::object();
  for (const json& p : parts) j.update(p);
  return j;
}

// A layer of every kind: window alone and experts by token, CSA, HCA.
const json kV4 = merged({kExperts,
                         {{"residual", "mhc"},
                          {"num_hidden_layers", 3},
                          {"intermediate_size", 0},
                          {"head_dim", 16},
                          {"qk_rope_head_dim", 8},
                          {"q_lora_rank", 20},
                          {"o_groups", 2},
                          {"o_lora_rank", 12},
                          {"sliding_window", 4},
                          {"compress_ratios", {0, 4, 5, 0}},
                          {"index_n_heads", 2},
                          {"index_head_dim", 16},
                          {"index_topk", 2},
                          {"num_hash_layers", 1},
                          {"swiglu_limit", 10.0},
                          {"scoring_func", "sqrtsoftplus"},
                          {"topk_method", "noaux_tc"},
                          {"norm_topk_prob", true},
                          {"n_shared_experts", 1},
                          {"routed_scaling_factor", 1.5},
                          {"num_nextn_predict_layers", 1}}});

struct Case {
  const char* name;
  const char* type;  // under which the run is saved
  json set;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list{
      {"llama", "llama", kGqa},
      {"mixtral", "mixtral", merged({kGqa, kExperts, {{"norm_topk_prob", true}, {"intermediate_size", 0}}})},
      {"deepseek", "deepseek",
       merged({kExperts, {{"num_key_value_heads", 4}, {"n_shared_experts", 2}, {"first_k_dense_replace", 1}}})},
      {"deepseek_v2", "deepseek_v2",
       merged({kMla,
               kExperts,
               {{"q_lora_rank", 20},
                {"topk_method", "group_limited_greedy"},
                {"n_group", 4},
                {"topk_group", 2},
                {"n_shared_experts", 1},
                {"first_k_dense_replace", 1},
                {"routed_scaling_factor", 2.0}}})},
      {"deepseek_v3_mtp", "deepseek_v3",
       merged({kMla, kExperts, kV3, {{"q_lora_rank", 20}, {"num_nextn_predict_layers", 1}}})},
      {"deepseek_v32", "deepseek_v32",
       merged({kMla,
               kExperts,
               kV3,
               {{"q_lora_rank", 20},
                {"index_n_heads", 2},
                {"index_head_dim", 16},
                {"index_topk", 6},
                {"num_nextn_predict_layers", 1}}})},
      {"deepseek_v4", "deepseek_v4", kV4},
      {"deepseek_v4_muon", "deepseek_v4", merged({kV4, {{"optimizer", "muon"}, {"lr", 1e-2}}})},
      {"hyper_connections", "birkhoff", merged({kGqa, {{"residual", "hc"}}})},
      {"gqa_mhc_experts", "birkhoff", merged({kGqa, kExperts, kV3, {{"residual", "mhc"}}})},
      {"mhc_lite", "birkhoff", merged({kGqa, {{"residual", "mhc"}, {"hc_res_form", "lite"}}})},
      {"mhc_kron", "birkhoff", merged({kGqa, {{"residual", "mhc"}, {"hc_res_form", "kron"}}})},
  };
  return list;
}

class Overfit : public testing::TestWithParam<Case> {};

TEST_P(Overfit, OneBatch) {
  const Case& c = GetParam();
  const train::RunConfig config = train::make_run_config(settings(c.set), {});
  EXPECT_EQ(config.model.model_type, c.type);
  train::TrainState state(config, 2);
  state.initialise();
  const data::Batch batch = one_batch(config.model.vocab_size);
  const train::StepOutcome first = take_step(state, 0, {batch});
  EXPECT_GT(first.loss, 3.5);
  train::StepOutcome last;
  for (int64_t i = 1; i < config.train.steps; ++i) last = take_step(state, i, {batch});
  EXPECT_LT(last.loss, 0.05);
  EXPECT_EQ(first.indexer_loss.has_value(), config.model.uses_indexer());
  EXPECT_EQ(first.mtp_loss.has_value(), config.model.num_nextn_predict_layers > 0);
  if (first.mtp_loss) {
    EXPECT_GT(*first.mtp_loss, 3.5);
    EXPECT_LT(*last.mtp_loss, 0.05);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Overfit, testing::ValuesIn(cases()),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace birkhoff::test
