// Training a part of a model: frozen tensors, and what a model that is trained further takes over.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <regex>

#include "train/further_runs.h"

namespace birkhoff::test {
namespace {

TEST(Trainable, FrozenTensorsKeepTheirBits) {
  for (const std::string pattern : {"layers\\.1\\.mlp\\.experts\\.2\\.", "self_attn\\.q_a_proj", "up_proj", "norm",
                                    "e_score_correction_bias", "embed_tokens|lm_head"}) {
    train::RunConfig c = further_config();
    c.train.trainable = pattern;
    train::TrainState s(c, 2);
    s.initialise();
    const auto before = tensors(s);
    steps(s, 0, 3);
    const std::regex expression(pattern);
    for (const auto& [name, values] : tensors(s))
      EXPECT_EQ(values != before.at(name), std::regex_search(name, expression)) << pattern << ": " << name;
    EXPECT_LT(s.plan().optimizer, 8 * static_cast<size_t>(model::parameter_elements(s.model().parameters)));
  }
}

// Biases of linear layers move with the gradient alone, as norms do; alone, too, where the rest is frozen.
TEST(Trainable, BiasesAndNormsOfHeads) {
  train::RunConfig c = further_config();
  c.model = small_qwen_config();
  model::validate(c.model);
  const auto vector = [](const std::string& name) {
    return name.find(".bias") != std::string::npos || name.find("norm") != std::string::npos;
  };
  c.train.grad_clip = 0, c.train.weight_decay = 0;
  train::TrainState plain(c, 2);
  c.train.weight_decay = 0.5;
  train::TrainState decayed(c, 1);
  plain.initialise(), decayed.initialise();
  const auto before = tensors(plain);
  steps(plain, 0, 1), steps(decayed, 0, 1);
  const auto moved = tensors(plain);
  for (const auto& [name, values] : tensors(decayed)) EXPECT_EQ(values == moved.at(name), vector(name)) << name;
  for (const auto& [name, values] : moved) EXPECT_NE(values, before.at(name)) << name;

  c.train.trainable = "k_proj\\.bias|q_norm";
  train::TrainState some(c, 2);
  some.initialise();
  steps(some, 0, 3);
  for (const auto& [name, values] : tensors(some))
    EXPECT_EQ(values != before.at(name),
              name.find("k_proj.bias") != std::string::npos || name.find("q_norm") != std::string::npos)
        << name;
}

TEST(Trainable, GradientsOfWhatIsTrainedAreThoseOfTheWholeModel) {
  train::RunConfig c = further_config();
  c.train.grad_clip = 0, c.train.weight_decay = 0, c.train.bias_update_speed = 0;
  train::TrainState all(c, 2);
  all.initialise();
  c.train.trainable = "self_attn|experts\\.1\\.|embed";
  train::TrainState some(c, 2);
  some.initialise();
  steps(all, 0, 1);
  steps(some, 0, 1);
  const auto want = tensors(all);
  for (const auto& p : some.trainable().parameters) {
    if (!p.trained) continue;
    EXPECT_EQ(std::memcmp(p.weight, want.at(p.info.name).data(), static_cast<size_t>(p.info.size()) * 4), 0)
        << p.info.name;
  }
}

TEST(Trainable, OnlyWhatIsTrainedHasMoments) {
  train::RunConfig c = further_config();
  c.train.trainable = "self_attn\\.o_proj";
  train::TrainState s(c, 1);
  int64_t trained = 0;
  for (const auto& p : s.trainable().parameters)
    if (p.trained) trained += p.info.size();
  EXPECT_EQ(s.moment_elements(), trained);
  EXPECT_EQ(s.trainable().find("model.embed_tokens.weight")->state, -1) << "a frozen matrix has no gradient";
}

TEST(Trainable, PatternsThatMatchNothingAreRefusedWithTheNearestNames) {
  train::RunConfig c = further_config();
  c.train.trainable = "self_atn.o_proj";
  EXPECT_NE(error_of([&] { train::TrainState(c, 1); }).find("o_proj.weight"), std::string::npos);
  c.train.trainable = "([";
  EXPECT_NE(error_of([&] { train::TrainState(c, 1); }).find("no regular expression"), std::string::npos);
}

TEST(Init, ModelSettingsComeWithTheWeights) {
  const model::ModelConfig from = further_config().model;
  const auto same = train::make_run_config({{"hidden_size", 20}, {"seq_len", 24}}, {"lr=0.5"}, &from);
  EXPECT_EQ(same.model.hidden_size, 20);
  EXPECT_EQ(same.train.lr, 0.5);
  const std::string e = error_of([&] { train::make_run_config({{"seq_len", 24}}, {"hidden_size=40"}, &from); });
  EXPECT_NE(e.find("hidden_size: the model has 20, asked for 40"), std::string::npos) << e;
}

}  // namespace
}  // namespace birkhoff::test
