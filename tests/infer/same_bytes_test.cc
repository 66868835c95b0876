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
struct Shape {
  std::string name;
  model::ModelConfig config;
  model::LatentAttention attention = model::LatentAttention::by_role;
};
std::vector<Shape> shapes() {
  model::ModelConfig latent = blocky(small_config("plain"));
  latent.kv_lora_rank = 64, latent.q_lora_rank = 32, latent.qk_nope_head_dim = 32, latent.v_head_dim = 32;
  model::ModelConfig sparse = latent;
  sparse.index_n_heads = 3, sparse.index_head_dim = 16, sparse.index_topk = 20;
  sparse.moe_intermediate_size = 40;   // down-projections of experts do not divide into blocks
  model::ModelConfig direct = latent;  // as V2-Lite
  direct.q_lora_rank = 0;
  return {{"latent", latent},
          {"sparse", sparse},
          {"gqa", blocky(small_config("plain", 1, false))},
          {"latent_expanded", latent, model::LatentAttention::expanded},
          {"direct_expanded", direct, model::LatentAttention::expanded},
          {"sparse_expanded", sparse, model::LatentAttention::expanded}};
}

std::vector<const layers::Linear*> kv_up_projections(const model::Model& m) {
  std::vector<const layers::Linear*> found;
  layers::for_each_linear(m.weights, "", [&](const std::string&, const layers::Linear& l) {
    if (!l.parts.empty() && l.parts[0].name == "kv_b_proj") found.push_back(&l);
  });
  return found;
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
    const Shape shape = shapes()[kind];
    write_model(dir.path(), shape.config);
    options.latent_attention = shape.attention;
    options.compute = dtype;
    options.threads = 2;
    options.weights = {weights, weights};
    ids = random_ids(150, shape.config.vocab_size);
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

// Where nothing is made again or absorbed, tokens of both roles have the bits of the forward without a cache.
TEST_P(SameBytes, AsTheFullForward) {
  if (shapes()[std::get<0>(GetParam())].attention != model::LatentAttention::expanded) return;
  const Engine engine(dir.path(), options);
  for (const layers::Linear* l : kv_up_projections(engine.model())) EXPECT_TRUE(l->row_blocks.empty());
  Bits full;
  engine.full_logits(ids, [&](int64_t, std::span<const float> row) { full.emplace_back(row.begin(), row.end()); });
  const Bits want(full.begin() + 129, full.end());
  for (const size_t piece : {1, 7, 64, 130}) {
    Session session(engine, 160);
    EXPECT_EQ(run(session, prompt(), piece, generated()), want) << "pieces of " << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, SameBytes,
                         testing::Combine(testing::Range<size_t>(0, shapes().size()), testing::Values("fp32", "bf16"),
                                          testing::Values(ops::WeightFormat::stored, ops::WeightFormat::q8,
                                                          ops::WeightFormat::q4)),
                         [](const auto& p) {
                           return shapes()[std::get<0>(p.param)].name + "_" + std::get<1>(p.param) + "_" +
                                  name_of(std::get<2>(p.param));
                         });

// The first token generated is read in another form than the prompt's tokens, in the same order.
TEST(LatentAttention, ATokensRoleChoosesItsForm) {
  TempDir dir;
  write_model(dir.path(), shapes()[0].config);
  const auto last = [&](model::LatentAttention how, TokenRole role) {
    infer::EngineOptions options;
    options.compute = "fp32";
    options.latent_attention = how;
    const Engine engine(dir.path(), options);
    const auto ids = random_ids(60, engine.model().config.vocab_size);
    Session session(engine, 60);
    session.feed(std::span(ids).first(59));
    const auto logits = session.feed(std::span(ids).last(1), role);
    return std::vector<float>(logits.begin(), logits.end());
  };
  using model::LatentAttention;
  const auto expanded = last(LatentAttention::by_role, TokenRole::prompt);
  EXPECT_NE(last(LatentAttention::by_role, TokenRole::generated), expanded) << "rounding tells them apart";
  for (const TokenRole role : {TokenRole::prompt, TokenRole::generated}) {
    EXPECT_EQ(last(LatentAttention::expanded, role), expanded);
    EXPECT_NE(last(LatentAttention::absorbed, role), expanded);
  }
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
