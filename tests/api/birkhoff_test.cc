// The library by its one header: what it gives is what the engine gives, and what fails says so without an exception.
#include "api/birkhoff.h"

#include <gtest/gtest.h>

#include <thread>

#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

class Api : public testing::Test {
 protected:
  Api() {
    model::ModelConfig c = small_config("plain");
    c.vocab_size = 256;  // bytes are tokens
    write_model(dir.path(), c);
  }
  api::Engine open(int64_t prefix_bytes = 0) const {
    api::EngineOptions o;
    o.threads = 2;
    o.prefix_bytes = prefix_bytes;
    auto engine = api::Engine::open(dir.path(), o);
    EXPECT_TRUE(engine) << engine.failure().what;
    return *engine;
  }
  TempDir dir;
};

TEST_F(Api, ReadsAndWrites) {
  const api::Engine engine = open();
  EXPECT_EQ(engine.vocabulary(), 256);
  const auto prompt = engine.encode("Once upon");
  ASSERT_TRUE(prompt);
  EXPECT_EQ(*engine.decode(*prompt), "Once upon");
  auto session = engine.session(100);
  ASSERT_TRUE(session);
  api::GenerationOptions o;
  o.max_tokens = 12, o.temperature = 0, o.logprobs = true, o.top_logprobs = 2;
  std::vector<int32_t> ids(prompt->begin(), prompt->end());
  std::vector<double> logprobs;
  std::string text;
  const auto written = session->generate(*prompt, o, [&](const api::Token& t) {
    ids.push_back(t.id), logprobs.push_back(t.logprob);
    text += t.text;
    EXPECT_EQ(t.top.size(), 2u);
    EXPECT_EQ(t.top[0].first, t.id);
    return true;
  });
  ASSERT_TRUE(written);
  EXPECT_EQ(written->finish, api::Finish::length);
  EXPECT_EQ(written->tokens, 12);
  EXPECT_EQ(session->length(), static_cast<int64_t>(ids.size()) - 1) << "the last token was not read";
  const auto all = engine.log_probabilities(ids);
  ASSERT_TRUE(all);
  ASSERT_EQ(all->size(), ids.size() - 1);
  for (size_t i = 0; i < logprobs.size(); ++i) EXPECT_NEAR((*all)[prompt->size() - 1 + i], logprobs[i], 1e-3);
  EXPECT_EQ(engine.hidden_states(ids)->size() % ids.size(), 0u);
}

TEST_F(Api, SessionsGoBackForkAndGoToFiles) {
  const api::Engine engine = open();
  const auto ids = random_ids(90, 256);
  auto a = engine.session(), b = engine.session(120);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->capacity(), engine.max_tokens());
  const auto want = *a->feed(ids);
  std::vector<int32_t> other(ids);
  other[50] ^= 1;
  ASSERT_TRUE(b->feed(other));
  EXPECT_EQ(*b->keep_common(ids), 50);
  auto fork = b->fork();
  ASSERT_TRUE(fork && b->save(dir / "session"));
  auto restored = engine.restore(dir / "session");
  ASSERT_TRUE(restored) << restored.failure().what;
  for (api::Session* s : {&*b, &*fork, &*restored}) EXPECT_EQ(*s->feed(std::span(ids).subspan(50)), want);
  EXPECT_FALSE(a->rewind(91));
  EXPECT_TRUE(a->rewind(89));
  const int32_t id = 7;
  api::Piece pieces[] = {{&*a, {&id, 1}}, {&*b, {&id, 1}}};
  ASSERT_TRUE(api::feed_together(pieces));
  EXPECT_EQ(pieces[1].logits, *fork->feed({&id, 1}, api::Role::generated));
  pieces[1].session = &*a;
  EXPECT_FALSE(api::feed_together(pieces)) << "twice the same";
}

TEST_F(Api, ManyTextsAtOnce) {
  const api::Engine engine = open(1 << 20);
  api::GenerationOptions o;
  o.max_tokens = 9, o.seed = 5;
  std::vector<std::vector<int32_t>> prompts, got(7), want(7);
  for (size_t i = 0; i < got.size(); ++i) {
    prompts.push_back(random_ids(5 + 20 * i, 256));
    auto session = engine.session(200);
    ASSERT_TRUE(session->generate(prompts[i], o, [&](const api::Token& t) {
      want[i].push_back(t.id);
      return true;
    }));
  }
  std::atomic<int> ended{0};
  api::Writer writer = *api::Writer::make(engine, 3);
  std::thread owner([&] { writer.run(); });
  for (size_t i = 0; i < got.size(); ++i) {
    api::Writer::Text text;
    text.prompt = prompts[i];
    text.options = o;
    text.on_token = [&got, i](const api::Token& t) {
      got[i].push_back(t.id);
      return true;
    };
    text.on_end = [&ended](const api::Result<api::Written>& w) { ended += w ? 1 : 100; };
    ASSERT_TRUE(writer.submit(std::move(text)));
  }
  while (ended < 7) std::this_thread::yield();
  writer.stop();
  owner.join();
  EXPECT_EQ(ended, 7);
  EXPECT_EQ(got, want);
}

TEST_F(Api, FailuresAreValues) {
  const auto none = api::Engine::open(dir / "nothing");
  ASSERT_FALSE(none);
  EXPECT_NE(none.failure().what.find("nothing"), std::string::npos);
  api::EngineOptions o;
  o.weights = "q3";
  const auto format = api::Engine::open(dir.path(), o);
  ASSERT_FALSE(format);
  EXPECT_NE(format.failure().what.find("q3"), std::string::npos);
  EXPECT_NE(format.failure().hint.find("q4"), std::string::npos);
  const api::Engine engine = open();
  o.weights = "auto", o.max_tokens = 1 << 20;
  EXPECT_FALSE(api::Engine::open(dir.path(), o)) << "more positions than the model has";
  o.max_tokens = -1;
  EXPECT_FALSE(api::Engine::open(dir.path(), o));
  EXPECT_FALSE(engine.session(1 << 30));
  auto session = engine.session(10);
  const std::vector<int32_t> wrong = {256}, long_text(11, 1);
  EXPECT_FALSE(session->feed(wrong));
  EXPECT_FALSE(session->feed(long_text));
  EXPECT_EQ(session->length(), 0);
  EXPECT_FALSE(engine.chat_prompt("[{\"role\": \"user\", \"content\": \"x\"}]")) << "bytes have no chat format";
  EXPECT_FALSE(engine.restore(dir / "nothing"));
  EXPECT_FALSE(engine.log_probabilities(wrong));
  api::GenerationOptions g;
  g.temperature = -1;
  const auto written = session->generate(std::vector<int32_t>{1}, g, nullptr);
  ASSERT_FALSE(written);
  EXPECT_NE(written.failure().what.find("-1"), std::string::npos);
  api::Writer writer = *api::Writer::make(engine);
  EXPECT_FALSE(writer.submit({wrong, {}, 0, {}, {}}));
}

}  // namespace
}  // namespace birkhoff::test
