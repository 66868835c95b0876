// A conversation with a small model in its own format.
#include "infer/conversation.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/temp_dir.h"
#include "support/tokenized_model.h"
#include "text/chat/marked_encode.h"

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
        for (int64_t k = 0; k < head.cols; ++k) head.f32()[(head.rows - 1 - i) * head.cols + k] = (i % 2 ? 50.f : -50.f) * static_cast<float>(1 + (i / 2 + k) % 3);
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
  infer::SamplerOptions greedy;
  greedy.temperature = 0;
  infer::Session session(engine, 100);
  std::vector<int32_t> ids;
  text.tokenizer()->encode("<|user|>Why?<|assistant|>", ids);
  return text.sample(session.feed(ids), greedy, 0);
}

TEST_F(ConversationTest, PaddingRowsAreNeverSaid) {
  const Engine engine(dir.path(), engine_options());
  const infer::TextModel text(engine);
  infer::Session session(engine, 100);
  const std::span<const float> logits = session.feed(std::vector<int32_t>{5, 6, 7});
  ASSERT_GE(std::max_element(logits.begin(), logits.end()) - logits.begin(), text.tokenizer()->size()) << "a padding row is ahead";
  std::string streamed;
  const Reply r = ask(engine, 12, &streamed);
  EXPECT_EQ(r.tokens, 12);
  EXPECT_EQ(streamed, r.answer.content);
  EXPECT_TRUE(r.answer.content.starts_with(text.tokenizer()->decode(std::vector<int32_t>{first_id(engine, text)}))) << r.answer.content;
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

TEST_F(ConversationTest, ADirectoryWithoutATokenizerIsRefused) {
  std::filesystem::remove(dir / "tokenizer.json");
  const Engine engine(dir.path(), engine_options());
  EXPECT_THROW(Conversation{engine}, Error);
}

}  // namespace
}  // namespace birkhoff::test
