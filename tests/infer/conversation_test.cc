// A conversation with a small model in its own format.
#include "infer/conversation.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "support/temp_dir.h"
#include "support/tokenized_model.h"
#include "text/chat/marked_encode.h"
#include "text/jinja/json_value.h"

namespace birkhoff::test {
namespace {

using infer::Conversation;
using infer::Engine;
using infer::Reply;

const std::string kTemplate = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";
constexpr int64_t kPadding = 6;

infer::EngineOptions engine_options() {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2, o.max_positions = 200;
  return o;
}

struct ConversationTest : testing::Test {
  TempDir dir;

  // The padding rows of the head are pairs of opposite directions, so that one of them is ahead of every token.
  ConversationTest() {
    write_tokenized_model(dir.path(), "v3", kPadding, [](model::Model& m) {
      Mat& head = m.weights.head.w;
      for (int64_t i = 0; i < kPadding; ++i)
        for (int64_t k = 0; k < head.cols; ++k)
          head.f32()[(head.rows - 1 - i) * head.cols + k] =
              (i % 2 ? 50.f : -50.f) * static_cast<float>(1 + (i / 2 + k) % 3);
    });
    dir.file("chat_template.jinja", kTemplate);
  }

  Reply ask(const Engine& engine, int64_t tokens, std::string* streamed = nullptr) {
    Conversation c(engine);
    c.add_user("Why?");
    infer::ReplyOptions options;
    options.sampling.temperature = 0;
    options.max_tokens = tokens;
    const std::atomic<bool> stop{false};
    Reply r = c.reply(options, stop, [&](const text::chat::Answer& delta) {
      if (streamed) *streamed += delta.content;
    });
    EXPECT_EQ(c.messages().size(), 2u);
    return r;
  }
};

// What the model says first, found without a conversation.
int32_t first_id(const Engine& engine, const infer::TextModel& text) {
  infer::Session session(engine, 100);
  std::vector<int32_t> ids;
  text.tokenizer()->encode("<|user|>Why?<|assistant|>", ids);
  const std::span<const float> logits = session.feed(ids);
  const auto end = logits.begin() + text.tokenizer()->size();
  return static_cast<int32_t>(std::max_element(logits.begin(), end) - logits.begin());
}

TEST_F(ConversationTest, PaddingRowsAreNeverSaid) {
  const Engine engine(dir.path(), engine_options());
  const infer::TextModel text(engine);
  infer::Session session(engine, 100);
  const std::span<const float> logits = session.feed(std::vector<int32_t>{5, 6, 7});
  ASSERT_GE(std::max_element(logits.begin(), logits.end()) - logits.begin(), text.tokenizer()->size())
      << "a padding row is ahead";
  std::string streamed;
  const Reply r = ask(engine, 12, &streamed);
  EXPECT_EQ(r.tokens, 12);
  EXPECT_EQ(streamed, r.answer.content);
  EXPECT_TRUE(r.answer.content.starts_with(text.tokenizer()->decode(std::vector<int32_t>{first_id(engine, text)})))
      << r.answer.content;
}

TEST_F(ConversationTest, EveryEndIdOfTheModelsFilesStops) {
  int32_t first = 0;
  {
    const Engine engine(dir.path(), engine_options());
    first = first_id(engine, infer::TextModel(engine));
    EXPECT_EQ(ask(engine, 3).end, infer::ReplyEnd::length);
  }
  dir.file("generation_config.json", R"({"eos_token_id": [99999, )" + std::to_string(first) + "]}");
  const Engine engine(dir.path(), engine_options());
  const Reply r = ask(engine, 3);
  EXPECT_EQ(r.end, infer::ReplyEnd::finished);
  EXPECT_EQ(r.tokens, 1);
  EXPECT_EQ(r.answer.content, "");
}

// A prompt is read in pieces. One that was stopped half way goes on where it was, and gives what an undisturbed one
// gives. How long a piece takes is the machine's affair, so several moments are tried.
TEST_F(ConversationTest, StopIsSeenWhileThePromptIsRead) {
  infer::EngineOptions long_context = engine_options();
  long_context.max_positions = 4000;
  const Engine engine(dir.path(), long_context);
  const infer::TextModel reader(engine);
  std::string question;
  while (reader.tokenizer()->encode(question).size() < 1600) question += " one more word, and another";
  infer::ReplyOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = 5;
  const auto nothing = [](const text::chat::Answer&) {};
  const std::atomic<bool> go{false}, at_once{true};
  Conversation undisturbed(engine);
  undisturbed.add_user(question);
  const Reply expected = undisturbed.reply(options, go, nothing);
  ASSERT_GT(expected.prompt_tokens, 1600);
  bool half_way = false;
  for (int delay_ms = 1; delay_ms < 4000 && !half_way; delay_ms *= 2) {
    Conversation c(engine);
    c.add_user(question);
    std::atomic<bool> stop{false};
    std::thread interrupt([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
      stop = true;
    });
    c.reply(options, stop, nothing);
    interrupt.join();
    c.drop_last();
    const Reply held = c.reply(options, at_once, nothing);
    EXPECT_EQ(held.end, infer::ReplyEnd::interrupted);
    EXPECT_EQ(c.messages().size(), 2u) << "the answer stays as far as it got";
    half_way = held.reused_tokens > 0 && held.reused_tokens < held.prompt_tokens;
    c.drop_last();
    EXPECT_EQ(c.reply(options, go, nothing).answer.content, expected.answer.content);
  }
  EXPECT_TRUE(half_way) << "no moment found the prompt half read";
}

// Formats forget: earlier reasoning is left out of later prompts. What was fed is then no beginning of the prompt.
TEST_F(ConversationTest, AFormatThatRewritesEarlierTextGoesBackToThere) {
  const std::string forgetful =
      "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}(forgotten){% else %}{{ m.content }}"
      "{% endif %}{% endfor %}<|assistant|>";
  const Engine engine(dir.path(), engine_options());
  const auto format = text::chat::ChatFormat::from_template(forgetful);
  const std::atomic<bool> go{false};
  const auto nothing = [](const text::chat::Answer&) {};
  infer::ReplyOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = 2;
  Conversation c(engine, format), fresh(engine, format);
  c.add_user("Why?");
  const int64_t first = c.reply(options, go, nothing).prompt_tokens;
  c.add_user("And why is that, if one may ask, when all is said and done?");
  fresh.load(c.messages());
  options.max_tokens = 8;
  const Reply later = c.reply(options, go, nothing), expected = fresh.reply(options, go, nothing);
  EXPECT_EQ(later.prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(later.reused_tokens, first) << "what was asked, without the answer";
  EXPECT_EQ(expected.reused_tokens, 0);
  EXPECT_EQ(later.answer.content, expected.answer.content);
  c.add_user("And?");
  EXPECT_EQ(c.reply(options, go, nothing).reused_tokens, later.prompt_tokens) << "the session holds what was fed";
}

TEST_F(ConversationTest, StopBeforeThePromptReadsNothing) {
  const Engine engine(dir.path(), engine_options());
  Conversation c(engine);
  c.add_user("Why?");
  const std::atomic<bool> stop{true}, go{false};
  const auto nothing = [](const text::chat::Answer&) {};
  const Reply r = c.reply({}, stop, nothing);
  EXPECT_EQ(r.end, infer::ReplyEnd::interrupted);
  EXPECT_EQ(r.tokens, 0);
  c.drop_last();
  infer::ReplyOptions one;
  one.max_tokens = 1;
  EXPECT_EQ(c.reply(one, go, nothing).reused_tokens, 0) << "the session held nothing of the prompt";
}

TEST_F(ConversationTest, HistoryIsMessagesWithRoles) {
  const Engine engine(dir.path(), engine_options());
  Conversation c(engine);
  c.add_user("Why?");
  for (const char* bad : {"[1]", R"([{"role": 5, "content": "x"}])", R"([{"role": "user"}, {"content": "x"}])"})
    EXPECT_THROW(c.load(text::chat::parse_json(bad).items()), Error) << bad;
  EXPECT_EQ(c.messages().size(), 1u) << "what is refused takes no place";
  c.load(text::chat::parse_json(R"([{"role": "user", "content": "x"}, {"role": "odd"}])").items());
  EXPECT_EQ(c.messages().size(), 2u);
}

TEST_F(ConversationTest, AFormatCanBeGiven) {
  for (const char* file : {"chat_template.jinja", "tokenizer_config.json"}) std::filesystem::remove(dir / file);
  const Engine engine(dir.path(), engine_options());
  EXPECT_THROW(Conversation{engine}, Error);
  Conversation c(engine, text::chat::ChatFormat::from_template(kTemplate));
  c.add_user("Why?");
  infer::ReplyOptions options;
  options.max_tokens = 1;
  const std::atomic<bool> stop{false};
  std::vector<int32_t> ids;
  infer::TextModel(engine).tokenizer()->encode("<|user|>Why?<|assistant|>", ids);
  EXPECT_EQ(c.reply(options, stop, [](const text::chat::Answer&) {}).prompt_tokens, static_cast<int64_t>(ids.size()));
}

TEST_F(ConversationTest, ADirectoryWithoutATokenizerIsRefused) {
  std::filesystem::remove(dir / "tokenizer.json");
  const Engine engine(dir.path(), engine_options());
  EXPECT_THROW(Conversation{engine}, Error);
}

}  // namespace
}  // namespace birkhoff::test
