#include "data/token_shard.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "data/corpus.h"
#include "support/golden.h"
#include "support/limits.h"
#include "support/temp_dir.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::data {
namespace {

using Ids = std::vector<int32_t>;
using test::TempDir;

Tokenization v3() {
  Tokenization t;
  t.tokenizer = text::Tokenizer::open(test::committed_dir() + "/tokenizers/v3");
  return t;
}

void write(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }

Ids document(const TokenShard& s, size_t i) {
  return {s.ids().begin() + s.starts()[i], s.ids().begin() + s.starts()[i + 1]};
}

Ids closed(const Tokenization& t, const std::string& text) {
  Ids ids = t.tokenizer->encode(text);
  ids.push_back(*t.tokenizer->eos());
  return ids;
}

TEST(TokenShard, EveryDocumentEndsWithTheEndToken) {
  const TempDir dir;
  write(dir.path() + "/a.txt", "First document.\n");
  write(dir.path() + "/b.jsonl", "{\"text\": \"one \\u00e9\"}\n\n{\"text\": \"\"}\n{\"text\": \"two\", \"meta\": 1}\n");
  write(dir.path() + "/c.txt", "");
  const Tokenization t = v3();
  const TokenShard s(dir.path(), t);
  ASSERT_EQ(s.starts().size(), 4u);
  EXPECT_EQ(document(s, 0), closed(t, "First document.\n"));
  EXPECT_EQ(document(s, 1), closed(t, "one \u00e9"));
  EXPECT_EQ(document(s, 2), closed(t, "two"));
}

TEST(TokenShard, BadLinesAndTextAreNamed) {
  const TempDir dir;
  const auto message = [&](const std::string& name, const std::string& content) -> std::string {
    write(dir.path() + "/" + name, content);
    try {
      TokenShard(dir.path() + "/" + name, v3());
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message("a.jsonl", "{\"text\": \"x\"}\n{\"txt\": 1}\n").find("a.jsonl:2"), std::string::npos);
  EXPECT_NE(message("b.jsonl", "{\"text\": \"x\"}\nno\n").find("b.jsonl:2"), std::string::npos);
  EXPECT_NE(message("c.txt", "ab\xFF").find("c.txt"), std::string::npos);
  Tokenization without = v3();
  without.tokenizer = text::Tokenizer::open(test::committed_dir() + "/tokenizers/llm");
  EXPECT_THROW(TokenShard(dir.path() + "/a.jsonl", without), Error);
}

TEST(TokenShard, IsKeptByContent) {
  const TempDir dir;
  Tokenization t = v3();
  t.cache = dir.path() + "/cache";
  const std::string file = dir.path() + "/a.txt";
  write(file, "some text to keep");
  const TokenShard first(file, t), second(file, t);
  EXPECT_FALSE(first.cached());
  EXPECT_TRUE(second.cached());
  EXPECT_EQ(Ids(first.ids().begin(), first.ids().end()), Ids(second.ids().begin(), second.ids().end()));
  EXPECT_EQ(second.starts().size(), 2u);
  write(file, "some text to kees");
  const TokenShard third(file, t);
  EXPECT_FALSE(third.cached());
  EXPECT_EQ(document(third, 0), closed(t, "some text to kees"));
  // A damaged shard is made anew.
  for (const auto& e : std::filesystem::directory_iterator(t.cache))
    std::filesystem::resize_file(e.path(), std::filesystem::file_size(e.path()) - 3);
  const TokenShard again(file, t);
  EXPECT_FALSE(again.cached());
  EXPECT_EQ(document(again, 0), document(third, 0));
}

TEST(TokenShard, IsMadeWithoutACacheThatCannotBeWritten) {
  const TempDir dir;
  Tokenization t = v3();
  const std::string file = dir.path() + "/a.txt";
  write(file, "some text");
  t.cache = file + "/below";
  std::string told;
  t.note = [&](const std::string& reason) { told = reason; };
  const TokenShard shard(file, t);
  EXPECT_FALSE(shard.cached());
  EXPECT_EQ(document(shard, 0), closed(t, "some text"));
  EXPECT_NE(told.find("[file] " + t.cache), std::string::npos) << told;
}

TEST(TokenShard, IsMadeAnewWhereTheCachedOneMayNotBeRead) {
  namespace fs = std::filesystem;
  const TempDir dir;
  Tokenization t = v3();
  const std::string file = dir.path() + "/a.txt";
  write(file, "some text");
  t.cache = dir.path() + "/cache";
  const TokenShard first(file, t);
  fs::permissions(dir.path(), fs::perms::all);
  for (const auto& e : fs::directory_iterator(t.cache)) fs::permissions(e.path(), fs::perms::none);
  const test::WithoutPrivileges nobody;
  if (!nobody.effective()) return;
  const TokenShard again(file, t);
  EXPECT_FALSE(again.cached());
  EXPECT_EQ(document(again, 0), document(first, 0));
}

TEST(TokenShard, FillInTheMiddleRearrangesWholeDocuments) {
  const TempDir dir;
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines += "{\"text\": \"doc \\u00fc" + std::to_string(i) + " with some words \\ud83d\\ude00\"}\n";
  write(dir.path() + "/a.jsonl", lines);
  Tokenization t = v3();
  const text::FimTokens f = text::find_fim_tokens(*t.tokenizer);
  for (const double rate : {0.0, 0.5, 1.0}) {
    t.fim_rate = rate;
    const TokenShard s(dir.path() + "/a.jsonl", t);
    int rearranged = 0;
    for (size_t i = 0; i < 40; ++i) {
      Ids ids = document(s, i);
      EXPECT_EQ(ids.back(), *t.tokenizer->eos());
      ids.pop_back();
      std::string text = t.tokenizer->decode(ids);
      if (ids[0] == f.begin) {
        ++rearranged;
        const auto hole = std::find(ids.begin(), ids.end(), f.hole), end = std::find(ids.begin(), ids.end(), f.end);
        ASSERT_TRUE(hole < end && end != ids.end());
        const auto part = [&](auto a, auto b) { return t.tokenizer->decode(Ids(a, b)); };
        text = part(ids.begin() + 1, hole) + part(end + 1, ids.end()) + part(hole + 1, end);
      }
      EXPECT_EQ(text, "doc ü" + std::to_string(i) + " with some words 😀");
    }
    EXPECT_TRUE(rate == 0.5 ? rearranged > 8 && rearranged < 32 : rearranged == static_cast<int>(40 * rate))
        << rearranged;
  }
}

// What generate --fim asks reads as what was trained on, special tokens within the text among it.
TEST(TokenShard, FillInTheMiddleReadsTextAsThePromptDoes) {
  const TempDir dir;
  const std::string text = "left <｜User｜> right <｜User｜> end";
  write(dir.path() + "/a.txt", text);
  Tokenization t = v3();
  t.fim_rate = 1;
  const TokenShard s(dir.path() + "/a.txt", t);
  Ids ids = document(s, 0);
  const text::FimTokens f = text::find_fim_tokens(*t.tokenizer);
  const auto hole = std::find(ids.begin(), ids.end(), f.hole), end = std::find(ids.begin(), ids.end(), f.end);
  ASSERT_TRUE(ids[0] == f.begin && end != ids.end());
  const std::string prefix = t.tokenizer->decode(Ids(ids.begin() + 1, hole)),
                    suffix = t.tokenizer->decode(Ids(hole + 1, end));
  ASSERT_NE((prefix + suffix).find("<｜User｜>"), std::string::npos)
      << "the seed cuts the document so that the prompt has a token";
  const Ids prompt = text::fim_prompt(*t.tokenizer, prefix, suffix);
  const auto begin = static_cast<std::ptrdiff_t>(t.tokenizer->before().size());
  EXPECT_EQ(Ids(prompt.begin() + begin, prompt.end()), Ids(ids.begin(), end + 1));
}

TEST(ShardedCorpus, TokensRestartAtDocuments) {
  const TempDir dir;
  std::string lines;
  for (int i = 0; i < 30; ++i) lines += "{\"text\": \"document number " + std::to_string(i) + "\"}\n";
  write(dir.path() + "/a.jsonl", lines);
  const Tokenization t = v3();
  const TokenShard shard(dir.path() + "/a.jsonl", t);
  const int64_t seq_len = 32;
  const Corpus corpus({dir.path() + "/a.jsonl"}, {}, seq_len, 3, &t);
  const Batch b = corpus.training_batch(0, 4, 0, 4);
  ASSERT_EQ(b.ids.size(), 128u);
  int ends = 0;
  for (size_t i = 0; i < b.ids.size(); ++i) {
    const bool end = b.ids[i] == *t.tokenizer->eos(), row_end = i % 32 == 31;
    ends += end;
    if (end) {
      EXPECT_EQ(b.labels[i], kIgnoreLabel);
      if (!row_end) {
        EXPECT_EQ(b.position[i + 1], 0);
      }
    } else if (!row_end) {
      EXPECT_EQ(b.labels[i], b.ids[i + 1]);
      EXPECT_EQ(b.position[i + 1], b.position[i] + 1);
    }
  }
  EXPECT_GT(ends, 4);
}

}  // namespace
}  // namespace birkhoff::data
