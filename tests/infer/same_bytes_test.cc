// A token's bits depend on its role and on what stands before it: not on the pieces a prompt came in, on what was fed
// and taken back, on threads or neighbours. With weights as they are stored and quantised.
#include <algorithm>

#include "infer/session.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Session;
using infer::TokenRole;

// Widths that divide into blocks of 32.
model::ModelConfig blocky(model::ModelConfig c) {
  c.hidden_size = 64, c.intermediate_size = 96, c.moe_intermediate_size = 32;
  return c;
}
std::vector<std::pair<std::string, model::ModelConfig>> shapes() {
  model::ModelConfig latent = blocky(small_config("plain"));
  latent.kv_lora_rank = 64, latent.q_lora_rank = 32, latent.qk_nope_head_dim = 32, latent.v_head_dim = 32;
  model::ModelConfig sparse = latent;
  sparse.index_n_heads = 3, sparse.index_head_dim = 16, sparse.index_topk = 20;
  return {{"latent", latent}, {"sparse", sparse}, {"gqa", blocky(small_config("plain", 1, false))}};
}

using Bits = std::vector<std::vector<float>>;

// Logits after the prompt, fed in pieces, and after every generated token.
Bits run(Session& session, std::span<const int32_t> prompt, size_t piece, std::span<const int32_t> generated) {
  Bits all;
  const auto keep = [&](std::span<const float> logits) { all.emplace_back(logits.begin(), logits.end()); };
  for (size_t at = 0; at < prompt.size(); at += piece) {
    const auto logits = session.feed(prompt.subspan(at, std::min(piece, prompt.size() - at)));
    if (at + piece >= prompt.size()) keep(logits);
  }
  for (const int32_t& id : generated) keep(session.feed({&id, 1}, TokenRole::generated));
  return all;
}

class SameBytes : public testing::TestWithParam<std::tuple<size_t, std::string, ops::WeightFormat>> {
 protected:
  SameBytes() {
    const auto& [kind, dtype, weights] = GetParam();
    const model::ModelConfig config = shapes()[kind].second;
    write_model(dir.path(), config);
    options.compute = dtype;
    options.threads = 2;
    options.weights = {weights, weights};
    ids = random_ids(150, config.vocab_size);
  }
  std::span<const int32_t> prompt() const { return std::span(ids).first(130); }
  std::span<const int32_t> generated() const { return std::span(ids).last(20); }
  TempDir dir;
  infer::EngineOptions options;
  std::vector<int32_t> ids;
};

TEST_P(SameBytes, WhateverThePiecesAndThreads) {
  const Engine engine(dir.path(), options);
  Session whole(engine, 200);
  const Bits want = run(whole, prompt(), prompt().size(), generated());
  for (const size_t piece : {1, 7, 64}) {
    Session session(engine, 160);
    EXPECT_EQ(run(session, prompt(), piece, generated()), want) << "pieces of " << piece;
  }
  for (const int threads : {1, 3}) {
    options.threads = threads;
    const Engine other(dir.path(), options);
    Session session(other, 150);
    EXPECT_EQ(run(session, prompt(), 64, generated()), want) << threads << " threads";
  }
}

TEST_P(SameBytes, AfterGoingBack) {
  const Engine engine(dir.path(), options);
  Session straight(engine, 200), session(engine, 200);
  const Bits want = run(straight, prompt(), 50, generated());
  std::vector<int32_t> wrong(ids.rbegin(), ids.rend());
  session.feed(prompt().first(40));
  run(session, std::span(wrong).first(60), 30, std::span(wrong).last(9));
  ASSERT_TRUE(session.rewind(40));
  EXPECT_EQ(session.length(), 40);
  EXPECT_EQ(run(session, prompt().subspan(40), 45, generated()), want);
  ASSERT_TRUE(session.rewind(130));
  EXPECT_EQ(run(session, {}, 1, generated()), Bits(want.begin() + 1, want.end()));
}

INSTANTIATE_TEST_SUITE_P(Kinds, SameBytes,
                         testing::Combine(testing::Range<size_t>(0, shapes().size()), testing::Values("fp32", "bf16"),
                                          testing::Values(ops::WeightFormat::stored, ops::WeightFormat::q8,
                                                          ops::WeightFormat::q4)),
                         [](const auto& p) {
                           return shapes()[std::get<0>(p.param)].first + "_" + std::get<1>(p.param) + "_" +
                                  name_of(std::get<2>(p.param));
                         });

// The first token generated is read in another form than the prompt's tokens, in the same order.
TEST(MlaForms, ATokensRoleChoosesItsForm) {
  TempDir dir;
  write_model(dir.path(), shapes()[0].second);
  infer::EngineOptions options;
  options.compute = "fp32";
  const Engine engine(dir.path(), options);
  const auto ids = random_ids(60, engine.model().config.vocab_size);
  const auto last = [&](infer::MlaForms forms, TokenRole role) {
    Session session(engine, 60, forms);
    session.feed(std::span(ids).first(59));
    const auto logits = session.feed(std::span(ids).last(1), role);
    return std::vector<float>(logits.begin(), logits.end());
  };
  using layers::MlaForm;
  EXPECT_EQ(last({}, TokenRole::prompt), last(MlaForm::expanded, TokenRole::generated));
  infer::MlaForms crossed;
  crossed.generated = MlaForm::expanded;
  EXPECT_EQ(last(crossed, TokenRole::generated), last({}, TokenRole::prompt));
  EXPECT_NE(last({}, TokenRole::generated), last({}, TokenRole::prompt)) << "rounding tells them apart";
}

TEST(Rewind, WindowsOfV4DoNotGoBack) {
  TempDir dir;
  write_model(dir.path(), small_v4_config());
  infer::EngineOptions options;
  options.compute = "fp32";
  const Engine engine(dir.path(), options);
  const auto ids = random_ids(30, engine.model().config.vocab_size);
  Session session(engine, 60);
  session.feed(ids);
  EXPECT_FALSE(session.rewind(29));
  EXPECT_EQ(session.length(), 30);
  EXPECT_TRUE(session.rewind(30));
}

}  // namespace
}  // namespace birkhoff::test
