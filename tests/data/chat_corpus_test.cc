#include "data/chat_corpus.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace birkhoff::data {
namespace {

const std::string kGolden = test::committed_dir();

struct ChatCorpusTest : testing::Test {
  std::shared_ptr<const text::Tokenizer> tokenizer = text::Tokenizer::open(kGolden + "/tokenizers/v3");
  text::chat::ChatFormat format =
      text::chat::ChatFormat::from_template(test::read_file(kGolden + "/chat/templates/deepseek_v3.jinja"));
  test::TempDir dir;

  // n conversations of two turns; the answers carry their number.
  std::string conversations(int n) {
    std::string out;
    for (int i = 0; i < n; ++i) {
      const std::string k = std::to_string(i);
      out += R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "question )" + k +
             R"("}, {"role": "assistant", "content": "answer )" + k +
             R"(."}, {"role": "user", "content": "again"}, {"role": "assistant", "content": "more )" + k + R"(!"}]})" +
             "\n";
    }
    return dir.file("chat.jsonl", out);
  }
  ChatCorpus corpus(const std::string& file, int64_t seq_len = 128) {
    return {{file}, {}, tokenizer, format, seq_len, 1};
  }
};

// Text of the tokens that are to be predicted.
std::string learnt(const text::Tokenizer& t, const Batch& b) {
  std::vector<int32_t> ids;
  for (const int32_t label : b.labels)
    if (label != kIgnoreLabel) ids.push_back(label);
  return t.decode(ids);
}

TEST_F(ChatCorpusTest, LearnsTheTurnsOfTheAssistantAndTheirEndAlone) {
  const ChatCorpus c = corpus(conversations(2));
  const Batch b = c.training_batch(0, 1, 0, 1);
  EXPECT_EQ(learnt(*tokenizer, b), "answer 0.<｜end▁of▁sentence｜>more 0!<｜end▁of▁sentence｜>");
  // A label is the token that follows, in the same conversation.
  for (size_t i = 0; i + 1 < b.ids.size(); ++i) {
    if (b.labels[i] != kIgnoreLabel) {
      EXPECT_EQ(b.labels[i], b.ids[i + 1]);
      EXPECT_EQ(b.first_key[i], b.first_key[i + 1]);
    }
  }
  EXPECT_EQ(c.counts().turns, 4);
  EXPECT_EQ(c.counts().conversations, 2);
}

TEST_F(ChatCorpusTest, RowsHoldSeveralConversationsThatDoNotSeeEachOther) {
  const ChatCorpus c = corpus(conversations(60), 200);
  const Batch b = c.training_batch(0, 4, 0, 4);
  ASSERT_EQ(b.ids.size(), 800u);
  ASSERT_EQ(b.rows, 4);
  EXPECT_GT(b.segment_start.size(), 8u);
  const int32_t bos = *tokenizer->id("<｜begin▁of▁sentence｜>");
  std::set<int32_t> starts(b.segment_start.begin(), b.segment_start.end());
  for (int32_t i = 0; i < 800; ++i) {
    const auto k = static_cast<size_t>(i);
    EXPECT_EQ(b.position[k], i - b.first_key[k]);
    EXPECT_TRUE(starts.count(b.first_key[k]));
    EXPECT_EQ(b.position[k] == 0, starts.count(i) == 1);
    if (b.ids[k] == bos) {
      EXPECT_EQ(b.position[k], 0);
    }
  }
  EXPECT_GT(c.counts().tokens * 100 / (c.counts().rows * 200), 80) << "rows are well filled";
}

TEST_F(ChatCorpusTest, EveryEpochVisitsEveryRowOnce) {
  const ChatCorpus c = corpus(conversations(40));
  const int64_t rows = c.counts().rows;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::multiset<std::string> seen;
    for (int64_t row = 0; row < rows; ++row)
      seen.insert(learnt(*tokenizer, c.training_batch(epoch * rows + row, 1, 0, 1)));
    std::set<std::string> once(seen.begin(), seen.end());
    EXPECT_EQ(static_cast<int64_t>(once.size()), rows) << epoch;
  }
  EXPECT_EQ(c.training_batch(3, 4, 2, 1).ids, c.training_batch(14, 1, 0, 1).ids)
      << "row 2 of step 3 of batches of 4 is row 14";
}

TEST_F(ChatCorpusTest, TheLastTwentiethIsHeldBack) {
  const ChatCorpus c = corpus(conversations(60));
  std::string validation;
  for (const Batch& b : c.validation_batches(2, 0)) validation += learnt(*tokenizer, b);
  for (const char* k : {"57", "58", "59"})
    EXPECT_NE(validation.find(std::string("answer ") + k + "."), std::string::npos) << validation;
  EXPECT_EQ(validation.find("answer 56."), std::string::npos);
  EXPECT_EQ(c.validation_batches(2, 1).size(), 1u);
}

TEST_F(ChatCorpusTest, WhatIsCutOrDroppedIsCounted) {
  std::string lines = test::read_file(conversations(20));
  lines += R"({"messages": [{"role": "user", "content": "only a question"}]})"
           "\n";  // nothing to learn
  lines += R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ")" +
           std::string(900, 'x') +
           R"("}]})"
           "\n";  // too long
  lines += R"({"messages": [{"role": "user", "content": ")" + std::string(3000, 'y') +
           R"("}, {"role": "assistant", "content": "late"}]})"
           "\n";  // cut before the answer
  lines += R"({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]})"
           "\n";  // the template refuses it
  const std::string file = dir.file("mixed.jsonl", lines);
  const ChatCorpus c({file}, {conversations(2)}, tokenizer, format, 64, 1);
  EXPECT_EQ(c.counts().conversations, 24);
  EXPECT_EQ(c.counts().refused, 1);
  EXPECT_EQ(c.counts().cut, 2);
  EXPECT_EQ(c.counts().dropped, 2) << "the one without a turn, and the one whose turn was cut off";
  EXPECT_NE(c.describe().find("mixed.jsonl:24"), std::string::npos) << c.describe();
  EXPECT_NE(c.describe().find("2 samples were longer"), std::string::npos) << c.describe();
}

TEST_F(ChatCorpusTest, AFolderIsItsFilesAndEachHoldsBackItsOwn) {
  const std::string lines = test::read_file(conversations(2));
  const test::TempDir folder;
  folder.file("a.jsonl", lines);
  folder.file("b.jsonl", lines + R"({"messages": [{"role": "user"}]})" + "\n");
  const ChatCorpus c({folder.path()}, {folder / "a.jsonl"}, tokenizer, format, 128, 1);
  EXPECT_EQ(c.counts().samples, 4);
  const ChatCorpus halves({folder.path()}, {}, tokenizer, format, 128, 1);
  EXPECT_EQ(halves.counts().samples, 2);
  // What is lost among the held back is said, too.
  EXPECT_NE(ChatCorpus({folder / "a.jsonl"}, {folder / "b.jsonl"}, tokenizer, format, 128, 1)
                .describe()
                .find("held back: 1 conversations were refused"),
            std::string::npos);
}

TEST_F(ChatCorpusTest, BadFilesAreNamedWithTheirLine) {
  const auto complaint = [&](const std::string& content) {
    try {
      corpus(dir.file("bad.jsonl", content));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_NE(complaint("{\"messages\": []}\nno json\n").find("bad.jsonl:2"), std::string::npos);
  EXPECT_NE(complaint("\n{\"text\": \"x\"}\n").find("bad.jsonl:2: no list \"messages\" but \"text\""),
            std::string::npos);
  EXPECT_NE(complaint("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n").find("no conversation"),
            std::string::npos);
  EXPECT_THROW(corpus(dir / "absent.jsonl"), Error);
  EXPECT_TRUE(ChatCorpus::is_chat_file(conversations(1)));
  EXPECT_FALSE(ChatCorpus::is_chat_file(dir.file("t.jsonl", "{\"text\": \"x\"}\n")));
  EXPECT_FALSE(ChatCorpus::is_chat_file(dir.file("t.txt", "{\"messages\": []}\n")));
}

}  // namespace
}  // namespace birkhoff::data
