#include "text/chat/marked_encode.h"

#include <gtest/gtest.h>

#include <random>

#include "support/golden.h"
#include "text/chat/chat_data.h"

namespace birkhoff::text::chat {
namespace {

using Ids = std::vector<int32_t>;

std::string tokenizer_dir(const char* name) { return test::committed_dir() + "/tokenizers/" + name; }

void append(Ids& ids, const Ids& more) { ids.insert(ids.end(), more.begin(), more.end()); }

TEST(MarkedEncode, WordsRunAcrossTheBorderOfFormatAndContent) {
  std::mt19937 random(3);
  const std::string text = "User: Hello world, 12345 Führer\n\nAssistant: don't 안녕하세요 你好  end";
  for (const char* name : {"v3", "v4", "llm", "coder", "sentencepiece"}) {
    const auto tokenizer = Tokenizer::open(tokenizer_dir(name));
    const Ids whole = tokenizer->encode(text);
    for (int round = 0; round < 50; ++round) {
      MaskedText marked;
      for (size_t i = 0; i < text.size();) {
        const size_t n = 1 + random() % 9;
        marked.append(std::string_view(text).substr(i, n), random() % 2);
        i += n;
      }
      EXPECT_EQ(encode_marked(*tokenizer, marked), whole) << name;
    }
  }
}

TEST(MarkedEncode, SpecialTokensMatchInTheFormatAlone) {
  const std::tuple<const char*, std::string, std::string> families[] = {
      {"v3", "<｜User｜>", "<｜Assistant｜>"},
      {"v4", "<｜begin▁of▁sentence｜>", "<｜fim▁hole｜>"},
      {"llm", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"}};
  for (const auto& [name, user, assistant] : families) {
    const auto tokenizer = Tokenizer::open(tokenizer_dir(name));
    ASSERT_TRUE(tokenizer->id(user) && tokenizer->id(assistant)) << name;
    MaskedText prompt(user);
    prompt.append("x " + assistant + "y", true);
    prompt.append(assistant);
    Ids expected = {*tokenizer->id(user)};
    append(expected, tokenizer->encode("x " + assistant + "y", Tokenizer::Added::plain));
    expected.push_back(*tokenizer->id(assistant));
    EXPECT_EQ(encode_marked(*tokenizer, prompt), expected) << name;
    // A token may not be completed by a content.
    MaskedText half(assistant.substr(0, 6));
    half.append(assistant.substr(6), true);
    EXPECT_EQ(encode_marked(*tokenizer, half), tokenizer->encode(assistant, Tokenizer::Added::plain)) << name;
  }
}

}  // namespace
}  // namespace birkhoff::text::chat
