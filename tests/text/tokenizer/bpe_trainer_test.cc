#include "text/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

std::vector<std::string> merge_lines(const TrainedBpe& bpe) {
  std::vector<std::string> lines;
  for (const auto& [l, r] : bpe.merges)
    lines.push_back(bpe.tokens[static_cast<size_t>(l)] + " " + bpe.tokens[static_cast<size_t>(r)]);
  return lines;
}

std::string shakespeare(size_t bytes) {
  std::ifstream in(test::committed_dir() + "/../../data/shakespeare.txt", std::ios::binary);
  std::string s(bytes, '\0');
  EXPECT_TRUE(in.read(s.data(), static_cast<std::streamsize>(bytes)));
  return s;
}

TEST(BpeTrainer, MergesOfTheReferenceLibrary) {
  const std::string text = shakespeare(60000);
  const json golden = json::parse(std::ifstream(test::committed_dir() + "/tokenizers/trainer.json"));
  ASSERT_EQ(golden.size(), 4u);
  for (const json& g : golden) {
    WordCounter counter(pattern_pre_tokenizer(g["pattern"]));
    counter.add(text);
    const TrainedBpe bpe = train_bpe(counter.counts(), g["vocab"], g["special"]);
    EXPECT_EQ(merge_lines(bpe), g["merges"].get<std::vector<std::string>>()) << g["pattern"];
    EXPECT_EQ(bpe.tokens.size(), 700u);
    EXPECT_EQ(bpe.tokens[1], "</s>");
    EXPECT_EQ(bpe.tokens[2], "!");
  }
}

// Counting everything anew before each merge, as long as no token comes about twice.
TEST(BpeTrainer, EqualsCountingAnew) {
  std::mt19937 random(2);
  WordCounts words;
  for (int i = 0; i < 300; ++i) {
    std::string w;
    for (size_t n = 1 + random() % 12; n > 0; --n) w.push_back("abcd"[random() % 4]);
    words[w] += 1 + random() % 5;
  }
  const TrainedBpe bpe = train_bpe(words, 256 + 40, {});
  std::map<std::string, std::vector<std::string>> split;
  for (const auto& [w, n] : words)
    for (const char c : w) split[w].emplace_back(1, c);
  std::map<std::string, int32_t> ids;
  for (size_t i = 0; i < bpe.tokens.size(); ++i) ids[bpe.tokens[i]] = static_cast<int32_t>(i);
  for (const auto& [l, r] : bpe.merges) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (const auto& [w, parts] : split)
      for (size_t i = 0; i + 1 < parts.size(); ++i) counts[{ids.at(parts[i]), ids.at(parts[i + 1])}] += words.at(w);
    const auto best = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second < b.second : a.first > b.first;
    });
    ASSERT_EQ((std::pair{l, r}), best->first) << "of " << best->second;
    const std::string &left = bpe.tokens[static_cast<size_t>(l)], &right = bpe.tokens[static_cast<size_t>(r)];
    for (auto& [w, parts] : split)
      for (size_t i = 0; i + 1 < parts.size(); ++i)
        if (parts[i] == left && parts[i + 1] == right) {
          parts[i] += right;
          parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
  }
}

TEST(BpeTrainer, TheDirectoryOpensAndReadsTheText) {
  const test::TempDir dir;
  const std::string text = shakespeare(40000) + " 日本語 😀\r\n\t x=1234";
  const std::vector<std::string> special = {"<s>", "</s>"};
  const json pattern = pattern_pre_tokenizer("v3");
  WordCounter counter(pattern);
  counter.add(text);
  const TrainedBpe bpe = train_bpe(counter.counts(), 500, special);
  write_tokenizer(dir.path() + "/t", bpe, special, pattern, "<s>", "</s>");
  const auto t = Tokenizer::open(dir.path() + "/t");
  EXPECT_EQ(t->size(), 500);
  EXPECT_EQ(t->bos(), 0);
  EXPECT_EQ(t->eos(), 1);
  const std::vector<int32_t> ids = t->encode(text);
  EXPECT_LT(ids.size(), text.size() * 3 / 4);
  EXPECT_EQ(t->decode(ids), text);
  EXPECT_EQ(t->encode("a</s>").back(), 1);
}

TEST(BpeTrainer, LimitsAreSaid) {
  WordCounts words = {{"ab", 3}};
  EXPECT_THROW(train_bpe(words, 255, {}), Error);
  EXPECT_THROW(train_bpe(words, 300, {"xx", "xx"}), Error);
  for (const char* special : {"", "a", "Ġ", "Ń", "\xFF"})
    EXPECT_THROW(train_bpe(words, 300, {"<s>", special}), Error) << special;
  EXPECT_NO_THROW(train_bpe(words, 300, {"<s>", " ", "日"}));
  EXPECT_EQ(train_bpe(words, 300, {}).tokens.size(), 257u);  // no more pairs
  EXPECT_THROW(pattern_pre_tokenizer("v9"), Error);
  WordCounter counter(pattern_pre_tokenizer("gpt2"));
  EXPECT_THROW(counter.add("\xFF"), Error);
}

}  // namespace
}  // namespace birkhoff::text
