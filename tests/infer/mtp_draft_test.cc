// Drafts of prediction modules: those of the training form, whatever a session went through; and no token, no bit of a
// session differs for them.
#include "infer/mtp_draft.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "infer/scheduler.h"
#include "io/user_files.h"
#include "model/config/inventory.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Generated;
using infer::GenerationOptions;
using infer::MtpDraft;
using infer::Session;
using infer::TokenRole;

const std::atomic<bool> kNeverStop{false};

struct MtpDraftTest : testing::TestWithParam<std::tuple<const char*, int64_t>> {
  static model::ModelConfig config() {
    const std::string kind = std::get<0>(GetParam());
    model::ModelConfig c = small_config(kind == "streams" ? "mhc" : "plain", 4, kind != "gqa");
    if (kind == "sparse") c.index_n_heads = 3, c.index_head_dim = 8, c.index_topk = 20;
    c.num_nextn_predict_layers = std::get<1>(GetParam());
    return c;
  }
  static infer::CacheOptions caches(bool predictors, int64_t prefix_bytes = 0) {
    infer::CacheOptions o;
    o.bytes = int64_t{32} << 20, o.prefix_bytes = prefix_bytes, o.predictors = predictors;
    return o;
  }
  size_t modules() const { return model.m->weights.mtp.size(); }

  // What modules say of a whole text and the tokens behind it, without a cache. What stands in for the hidden state of
  // a token that the model has not read is the last module's, which is defined here for one module alone.
  std::vector<int32_t> drafted_in_training(std::vector<int32_t> ids, int32_t next, size_t most) {
    const auto read = static_cast<int64_t>(ids.size());
    const model::Model& m = *model.m;
    std::vector<int32_t> drafted;
    Arena sources(size_t{8} << 20);
    const Mat source = sources.mat(m.compute, read + static_cast<int64_t>(most), m.residual.streams * m.residual.dim);
    ids.push_back(next);
    while (drafted.size() < most) {
      const auto T = static_cast<int64_t>(ids.size());
      const size_t k = std::min(drafted.size(), modules() - 1);
      Arena kept(size_t{64} << 20), scratch(size_t{64} << 20);
      const model::SequenceTokens tokens(T), known(read);
      const layers::TokenContext ctx = tokens.context(), before = known.context();
      model::Tape tape = model::reserve_tape(kept, m, read, model::Tape::Keep::for_backward);
      model::forward({exec, m, before, scratch}, std::span(ids).first(static_cast<size_t>(read)), tape);
      copy(model::mtp_source(m, tape, tape.hidden), source);
      auto modules_tape = model::reserve_mtp(
          kept, m, model::mtp_rows(ids, std::vector<int32_t>(ids.size(), 0), ctx, modules()), model::Recompute::none);
      model::forward_mtp({exec, m, ctx, scratch}, ids, source.row_block(0, T), modules_tape);
      const model::MtpTape& module = modules_tape[k];
      const int64_t last = module.hidden.rows - 1;
      Owned logits(1, m.config.vocab_size);
      model::logits(exec, m, module.hidden.row_block(last, 1), logits);
      const float* row = static_cast<Mat>(logits).f32();
      drafted.push_back(static_cast<int32_t>(std::max_element(row, row + m.config.vocab_size) - row));
      ids.push_back(drafted.back());
      if (modules() == 1 && drafted.size() < most)
        copy(model::mtp_source(m, module.stack, module.hidden).row_block(last, 1), source.row_block(T - 1, 1));
    }
    return drafted;
  }
  static void copy(CMat from, Mat to) { std::copy_n(from.f32(), from.size(), to.f32()); }

  std::vector<int32_t> draft(Session& session, int32_t next, size_t most) {
    MtpDraft d[] = {{&session, next, most, {9, 9}}};
    infer::draft_by_mtp(session.engine(), d);
    return d[0].ids;
  }
  // Of the session's text and several tokens behind it, each drafted for anew.
  void expect_right(Session& session, const std::string& what) {
    const size_t most = modules() == 1 ? 3 : modules();
    const std::vector<int32_t> ids(session.ids().begin(), session.ids().end());
    for (const int32_t next : {5, 0, 11})
      EXPECT_EQ(draft(session, next, most), drafted_in_training(ids, next, most)) << what << ", then " << next;
  }

  Exec exec{2};
  SmallModel model{config(), f32_t, 8, exec, 512};
  std::vector<int32_t> all = random_ids(300, 23);
  std::span<const int32_t> some(size_t from, size_t count) const { return std::span(all).subspan(from, count); }
};

TEST_P(MtpDraftTest, DraftsAreThoseOfTraining) {
  const Engine engine(*model.m, exec, "", caches(true));
  Session session(engine, 330);
  session.feed(some(0, 1));
  expect_right(session, "one token");
  session.feed(some(1, 60));
  expect_right(session, "a prompt");
  for (size_t at = 61; at < 70; ++at) {
    session.feed(some(at, 1), TokenRole::generated);
    if (at % 3 == 0) expect_right(session, "generated");
  }
  session.feed(some(70, 50), TokenRole::generated);
  expect_right(session, "much that no module had read");
  ASSERT_TRUE(session.rewind(90));
  session.feed(std::vector<int32_t>{11}, TokenRole::generated);  // which was drafted for last, further on
  session.feed(some(200, 20), TokenRole::generated);
  expect_right(session, "after going back");
  Session fork = session.fork();
  session.feed(some(1, 40));
  fork.feed(some(7, 3), TokenRole::generated);
  expect_right(fork, "a fork");
  expect_right(session, "another prompt");
  TempDir dir;
  draft(fork, 3, 1);
  fork.save(dir / "fork");
  Session restored = Session::restore(engine, dir / "fork");
  restored.feed(some(100, 2), TokenRole::generated);
  expect_right(restored, "from a file");
}

// Rows that modules lack lie in pages that others have too.
TEST_P(MtpDraftTest, AForksDraftsLeaveTheOtherAlone) {
  const Engine engine(*model.m, exec, "", caches(true));
  Session session(engine, 200);
  session.feed(some(0, 70));
  session.feed(some(70, 80), TokenRole::generated);  // the modules lack rows of a page before the last
  TempDir dir;
  session.save(dir / "before");
  Session fork = session.fork();
  draft(fork, 3, 2);
  session.save(dir / "after");
  EXPECT_EQ(io::read_file(dir / "after", 1 << 24), io::read_file(dir / "before", 1 << 24));
}

TEST_P(MtpDraftTest, PromptsThatAreSharedHaveTheirRows) {
  const Engine engine(*model.m, exec, "", caches(true, int64_t{8} << 20));
  Session first(engine, 300), second(engine, 300);
  first.feed(some(0, 200));
  draft(first, 4, 2);
  first.feed(some(200, 5), TokenRole::generated);
  ASSERT_EQ(second.recall(some(0, 150)), 128);
  second.feed(some(128, 22));
  expect_right(second, "found among prompts");
  first.feed(some(205, 30));
  expect_right(first, "whose pages it has");
}

// Of texts of all lengths at once: what each gets alone.
TEST_P(MtpDraftTest, ManyTextsDraftTogether) {
  const Engine engine(*model.m, exec, "", caches(true));
  std::vector<Session> together, alone;
  std::vector<MtpDraft> drafts;
  for (size_t i = 0; i < 70; ++i)
    for (auto* sessions : {&together, &alone}) {
      sessions->emplace_back(engine, 200);
      sessions->back().feed(some(i, 1 + i), TokenRole::prompt);
      sessions->back().feed(some(2 * i, 1 + i % 9), TokenRole::generated);
    }
  for (size_t i = 0; i < 70; ++i) drafts.push_back({&together[i], all[i], 1 + i % 4, {}});
  infer::draft_by_mtp(engine, drafts);
  for (size_t i = 0; i < 70; ++i) {
    EXPECT_EQ(drafts[i].ids.size(), drafts[i].most);
    EXPECT_EQ(drafts[i].ids, draft(alone[i], all[i], drafts[i].most)) << i;
  }
}

TEST_P(MtpDraftTest, CachesTakeWhatInspectSays) {
  TempDir dir;
  write_model(dir.path(), config());
  const model::Inventory said = model::take_inventory(config());
  for (const ops::CacheType type : {ops::CacheType::f32, ops::CacheType::bf16, ops::CacheType::int8}) {
    infer::CacheOptions o = caches(true);
    o.type = type;
    infer::EngineOptions options;
    options.caches = o;
    const Engine engine(dir.path(), options);
    const int64_t elements = said.kv_elements_per_token + said.mtp_kv_elements_per_token,
                  bytes = type == ops::CacheType::int8 ? said.kv_int8_bytes_per_token + said.mtp_kv_int8_bytes_per_token
                                                       : elements * (type == ops::CacheType::bf16 ? 2 : 4);
    EXPECT_EQ(engine.caches().page_bytes(), bytes * ops::kPageRows) << ops::cache_type_name(type);
    Session session(engine, 100);
    session.feed(some(0, 20));
    EXPECT_EQ(draft(session, 3, 2).size(), 2u);
  }
}

// Generated tokens meet latents in another form than kept keys, equal but for roundings.
TEST_P(MtpDraftTest, LatentsDraftAsKeptKeys) {
  TempDir dir;
  write_model(dir.path(), config());
  const auto drafts = [&](model::LatentAttention how) {
    infer::EngineOptions options;
    options.compute = "fp32", options.latent_attention = how, options.caches = caches(true);
    const Engine engine(dir.path(), options);
    Session session(engine, 200);
    session.feed(some(0, 80));
    std::vector<std::vector<int32_t>> drafted;
    for (size_t at = 80; at < 120; ++at) {
      drafted.push_back(draft(session, drafted.empty() ? 3 : drafted.back().back(), modules()));
      session.feed(some(at, 1), TokenRole::generated);
    }
    return drafted;
  };
  EXPECT_EQ(drafts(model::LatentAttention::by_role), drafts(model::LatentAttention::expanded));
}

struct Said {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
  bool operator==(const Said&) const = default;
};

GenerationOptions drafting(double temperature, int64_t draft) {
  GenerationOptions o;
  o.max_tokens = 60, o.sampling.temperature = temperature, o.sampling.seed = 3, o.logprobs = true;
  o.draft = draft, o.draft_by = infer::DraftBy::mtp;
  return o;
}

TEST_P(MtpDraftTest, TextsAreThoseOfPlainDecoding) {
  const Engine plain(*model.m, exec, "", caches(false)), engine(*model.m, exec, "", caches(true, int64_t{8} << 20));
  const auto say = [&](Session& session, const GenerationOptions& o, int64_t& drafted, int64_t& accepted) {
    Said said;
    const Generated g =
        infer::generate(session, nullptr, some(3, 70), o, kNeverStop, [&](const infer::GeneratedToken& t) {
          said.ids.push_back(t.id), said.logprobs.push_back(t.logprob);
          return true;
        });
    drafted += g.drafted, accepted += g.accepted;
    return said;
  };
  int64_t drafted = 0, accepted = 0, none = 0;
  std::vector<Said> want;
  std::vector<GenerationOptions> options;
  for (const double temperature : {0.0, 0.4, 1.0}) {
    for (const int64_t most : {1, 2, 5}) {
      Session before(plain, 140), session(engine, 140);
      want.push_back(say(before, drafting(temperature, 0), none, none));
      options.push_back(drafting(temperature, most));
      EXPECT_EQ(say(session, options.back(), drafted, accepted), want.back());
      const auto a = before.feed(some(0, 3)), b = session.feed(some(0, 3));
      EXPECT_EQ(std::vector<float>(a.begin(), a.end()), std::vector<float>(b.begin(), b.end())) << "as if undrafted";
    }
  }
  EXPECT_GT(accepted, 0) << "of " << drafted;
  EXPECT_LT(accepted, drafted);
  EXPECT_EQ(none, 0);

  std::vector<Said> got(want.size());
  infer::Scheduler scheduler(engine, {});
  int64_t together = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    infer::GenerationRequest r;
    r.prompt.assign(all.begin() + 3, all.begin() + 73);
    r.options = options[i];
    r.on_token = [&got, i](const infer::GeneratedToken& t) {
      got[i].ids.push_back(t.id), got[i].logprobs.push_back(t.logprob);
      return true;
    };
    r.on_end = [&](const Generated& g) { together += g.accepted; };
    scheduler.submit(std::move(r));
    scheduler.step();
  }
  scheduler.run_until_idle();
  EXPECT_EQ(got, want);
  EXPECT_EQ(together, accepted) << "the same drafts";
}

INSTANTIATE_TEST_SUITE_P(Kinds, MtpDraftTest,
                         testing::Combine(testing::Values("latent", "sparse", "streams", "gqa"),
                                          testing::Values<int64_t>(1, 2)),
                         [](const auto& p) {
                           return std::get<0>(p.param) + std::string("_") + std::to_string(std::get<1>(p.param));
                         });

TEST(MtpDrafts, ModulesAreReadWhenTheyAreAskedFor) {
  TempDir dir;
  model::ModelConfig c = small_config();
  write_model(dir / "none", c);
  c.num_nextn_predict_layers = 1;
  write_model(dir / "one", c);
  infer::EngineOptions o;
  const Engine without(dir / "one", o);
  EXPECT_TRUE(without.model().weights.mtp.empty());
  EXPECT_THROW(without.require_predictors(), Error);
  o.caches.predictors = true;
  const Engine with(dir / "one", o), none(dir / "none", o);
  EXPECT_NO_THROW(with.require_predictors());
  EXPECT_THROW(none.require_predictors(), Error);
  infer::Scheduler scheduler(none, {});
  infer::GenerationRequest r;
  r.prompt = {1};
  r.options = drafting(0, 1);
  EXPECT_THROW(scheduler.submit(r), Error);
  Session session(with, 20), other(without, 20);
  TempDir file;
  session.save(file / "s");
  EXPECT_THROW(Session::restore(without, file / "s"), Error);
}

TEST(MtpDrafts, V4DraftsNothing) {
  TempDir dir;
  model::ModelConfig c = small_v4_config();
  c.num_nextn_predict_layers = 1;
  write_model(dir.path(), c);
  infer::EngineOptions o;
  o.caches.predictors = true;
  const Engine engine(dir.path(), o);
  Session session(engine, 30);
  const std::vector<int32_t> prompt{1, 2, 3};
  GenerationOptions g = drafting(0, 2);
  g.max_tokens = 10;
  const Generated said =
      infer::generate(session, nullptr, prompt, g, kNeverStop, [](const infer::GeneratedToken&) { return true; });
  EXPECT_EQ(said.tokens, 10);
  EXPECT_EQ(said.drafted, 0);
}

}  // namespace
}  // namespace birkhoff::test
