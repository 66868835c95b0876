// A model in memory, with the weights of training, runs as the directory that it is saved to: bit for bit.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "eval/likelihood.h"
#include "infer/session.h"
#include "infer/text_model.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;

struct LentModel : testing::TestWithParam<std::tuple<const char*, DType>> {
  TempDir dir;
  Exec exec{2};
  DType compute = std::get<1>(GetParam());
  SmallModel model{config(), compute, 8, exec, 300};

  static model::ModelConfig config() {
    const std::string name = std::get<0>(GetParam());
    if (name == "v4") return wide_v4_config();
    model::ModelConfig c = wide_config(name == "mhc" ? "mhc" : "plain");
    if (name == "gqa") c.kv_lora_rank = c.q_lora_rank = 0, c.num_key_value_heads = 1, c.head_dim = 24;
    return c;
  }
  std::unique_ptr<Engine> saved(const std::string& name) {
    std::filesystem::create_directories(dir / name);
    checkpoint::save_weights(dir / name, *model.m, model::config_to_json(model.m->config), f32_t);
    infer::EngineOptions o;
    o.compute = compute == f32_t ? "fp32" : "bf16", o.threads = 1, o.max_positions = 300;
    return std::make_unique<Engine>(dir / name, o);
  }
};

std::vector<int32_t> some_ids(size_t n) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(Rng(6).bits(i) % 256);
  return ids;
}

std::vector<float> all_logits(const Engine& engine, std::span<const int32_t> ids) {
  std::vector<float> all;
  engine.full_logits(ids, [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); });
  return all;
}

// The last logits of the first ids, and those of every further one.
std::vector<float> session_logits(const Engine& engine, std::span<const int32_t> ids) {
  infer::Session session(engine, 200);
  std::vector<float> all;
  const auto keep = [&](std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); };
  keep(session.feed(ids.first(40)));
  for (const int32_t& id : ids.subspan(40)) keep(session.feed({&id, 1}));
  return all;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

TEST_P(LentModel, LogitsAreThoseOfItsDirectory) {
  const Engine lent(*model.m, exec);
  EXPECT_EQ(lent.max_positions(), 300);
  const auto ids = some_ids(70);
  const auto directory = saved("m");
  expect_same_bits(all_logits(lent, ids), all_logits(*directory, ids));
  expect_same_bits(session_logits(lent, ids), session_logits(*directory, ids));
}

// What it writes is what training would say of it, token by token.
TEST_P(LentModel, GeneratedTokensHaveTheBitsOfTheForward) {
  const Engine lent(*model.m, exec);
  const auto ids = some_ids(70);
  const auto want = all_logits(lent, ids);
  infer::Session session(lent, 70);
  std::vector<float> got(want.begin(), want.begin() + 29 * 256);
  const auto keep = [&](std::span<const float> row) { got.insert(got.end(), row.begin(), row.end()); };
  keep(session.feed(std::span(ids).first(30)));
  for (const int32_t& id : std::span(ids).subspan(30)) keep(session.feed({&id, 1}, infer::TokenRole::generated));
  expect_same_bits(got, want);
}

TEST_P(LentModel, WeightsAreReadWhenItRuns) {
  const Engine lent(*model.m, exec);
  const auto ids = some_ids(50);
  const auto before = all_logits(lent, ids);
  model.m->weights.for_each([&](const std::string&, Mat t, layers::Role role) {
    if (role != layers::Role::expert_table)
      for (int64_t i = 0; i < t.size(); ++i) t.f32()[i] *= 1.25f;
  });
  model.m->refresh(exec);
  const auto after = all_logits(lent, ids);
  EXPECT_NE(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  expect_same_bits(after, all_logits(*saved("later"), ids));
}

// Prompts that were read with other weights say nothing about what they are now, be the session as old as they.
TEST_P(LentModel, PromptsOfOtherWeightsAreForgotten) {
  infer::CacheOptions caches;
  caches.prefix_bytes = int64_t{1} << 26;
  const Engine lent(*model.m, exec, "", caches);
  const auto ids = some_ids(200);
  const auto prompt = std::span(ids).first(140);
  const auto logits = [&](infer::Session& s, std::span<const int32_t> more) {
    const auto row = s.feed(more);
    return std::vector<float>(row.begin(), row.end());
  };
  infer::Session old(lent, 200), before(lent, 200);
  logits(old, prompt);
  EXPECT_EQ(before.recall(prompt), lent.prefixes() ? 128 : 0);
  model.m->weights.for_each([&](const std::string&, Mat t, layers::Role role) {
    if (role == layers::Role::matrix)
      for (int64_t i = 0; i < t.size(); ++i) t.f32()[i] *= 1.25f;
  });
  model.m->refresh(exec);
  logits(old, std::span(ids).last(60));  // what it keeps of the prompt is of the weights before
  infer::Session after(lent, 200), whole(lent, 200);
  EXPECT_EQ(after.recall(ids), 0);
  const Engine plain(*model.m, exec);
  infer::Session want(plain, 200);
  EXPECT_EQ(logits(whole, ids), logits(want, ids));
  EXPECT_EQ(after.recall(ids), lent.prefixes() ? 192 : 0) << "of the weights of now";
}

// Norms stay, as where they are frozen.
TEST_P(LentModel, SessionFilesOfOtherWeightsAreRefused) {
  const Engine lent(*model.m, exec);
  infer::Session session(lent, 60);
  session.feed(some_ids(50));
  session.save(dir / "session");
  EXPECT_EQ(infer::Session::restore(lent, dir / "session").length(), 50);
  for (const char* moved : {"layers.0.", "layers.1."}) {
    const std::vector<float> before(model.m->block, model.m->block + model::parameter_elements(model.m->parameters));
    model.m->weights.for_each([&](const std::string& name, Mat t, layers::Role role) {
      if (role == layers::Role::output_projection && name.find(moved) != std::string::npos)
        for (int64_t i = 0; i < t.size(); ++i) t.f32()[i] *= 1.25f;
    });
    model.m->refresh(exec);
    expect_error([&] { infer::Session::restore(lent, dir / "session"); },
                 {dir / "session", ": model \"", "go on with"});
    std::copy(before.begin(), before.end(), model.m->block);
    model.m->refresh(exec);
    EXPECT_EQ(infer::Session::restore(lent, dir / "session").length(), 50) << "of the same weights again";
  }
}

TEST_P(LentModel, LossOnDataIsThatOfItsDirectory) {
  std::string bytes(400, ' ');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(Rng(4).bits(i) % 256);
  const std::string path = dir.file("text", bytes);
  const Engine lent(*model.m, exec);
  const auto directory = saved("m");
  const auto a = eval::window_likelihood(lent, {path}, 48, false);
  const auto b = eval::window_likelihood(*directory, {path}, 48, false);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.nats, b.nats);
  EXPECT_GT(a.nats, 0);

  // As a trainer validates: in arenas of its own, as large as planned.
  const auto batches = eval::windows(lent, infer::TextModel(lent), {path}, 48, false);
  const model::Pass::Need need = model::Pass::plan(
      [&](const Exec& dry, model::Pass& pass) { eval::batch_losses(dry, *model.m, pass, {batches[0]}); });
  Arena kept(need.kept), scratch(need.scratch);
  model::Pass pass(kept, scratch);
  const ops::LossSums sums = eval::batch_losses(exec, *model.m, pass, batches);
  EXPECT_EQ(sums.cross_entropy, b.nats);
  EXPECT_EQ(sums.tokens, b.tokens);
  EXPECT_EQ(kept.peak(), need.kept) << "planned is taken";
  EXPECT_EQ(scratch.peak(), need.scratch);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LentModel,
                         testing::Combine(testing::Values("mla", "gqa", "mhc", "v4"),
                                          testing::Values(DType::f32, DType::bf16)),
                         [](const auto& p) {
                           return std::string(std::get<0>(p.param)) +
                                  (std::get<1>(p.param) == DType::f32 ? "_fp32" : "_bf16");
                         });

}  // namespace
}  // namespace birkhoff::test
