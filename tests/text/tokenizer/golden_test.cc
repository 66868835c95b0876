// Ids and decoded text of the reference libraries. Small samples are in tests/golden; BIRKHOFF_DATA names the full
// sets.
#include "support/golden.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/temp_dir.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

std::vector<json> lines_of(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(json::parse(line));
  return rows;
}

std::string decoded_text(const json& row) {
  return row.contains("decoded") ? row["decoded"].get<std::string>() : row["text"].get<std::string>();
}

// Pushed one by one, the ids give the same text, and every part of it is whole characters.
std::string streamed(const std::shared_ptr<const Tokenizer>& t, const std::vector<int32_t>& ids) {
  StreamDecoder d(t);
  std::string out;
  for (const int32_t id : ids) out += d.push(id);
  return out + d.finish();
}

// Bytes that are no UTF-8 as U+FFFD.
std::string shown(const std::string& s) { return json(s).dump(-1, ' ', true, json::error_handler_t::replace); }

void compare(const std::string& tokenizer, const std::string& golden, bool stream) {
  const auto t = Tokenizer::open(tokenizer);
  const std::vector<json> rows = lines_of(golden);
  ASSERT_FALSE(rows.empty());
  int wrong = 0;
  for (const json& row : rows) {
    const auto text = row["text"].get<std::string>();
    const auto ids = row["ids"].get<std::vector<int32_t>>();
    const std::vector<int32_t> got = t->encode(text);
    const std::string decoded = t->decode(ids);
    if (got != ids || decoded != decoded_text(row) || (stream && streamed(t, ids) != decoded)) {
      ++wrong;
      if (wrong < 6)
        ADD_FAILURE() << golden << ": " << row.dump(-1, ' ', true) << "\n ids " << json(got) << "\n decoded "
                      << shown(decoded) << "\n streamed " << shown(streamed(t, ids));
    }
  }
  EXPECT_EQ(wrong, 0) << golden << ", of " << rows.size();
}

const std::string kSmall = test::committed_dir() + "/tokenizers/";

TEST(TokenizerGolden, ReducedTokenizersOfTheFamily) {
  for (const std::string name : {"v3", "v4", "llm", "coder"})
    compare(kSmall + name, kSmall + name + "/golden.jsonl", true);
}

TEST(TokenizerGolden, SentencePiece) { compare(kSmall + "sentencepiece", kSmall + "sentencepiece/golden.jsonl", true); }

// Llama's tokenizer class with "legacy": false and, for the second, "add_prefix_space": false.
TEST(TokenizerGolden, SentencePieceWithoutLegacySpaces) {
  for (const std::string name : {"first", "never"}) {
    const test::TempDir dir;
    std::filesystem::copy(kSmall + "sentencepiece/tokenizer.model", dir.path());
    std::filesystem::copy(kSmall + "sentencepiece/legacy_false_" + name + ".json", dir / "tokenizer_config.json");
    compare(dir.path(), kSmall + "sentencepiece/legacy_false_" + name + ".jsonl", true);
    const auto t = Tokenizer::open(dir.path());
    const std::vector<Tokenizer::Part> parts = {{"<s>", Tokenizer::Added::match},
                                                {"He", Tokenizer::Added::plain},
                                                {"y</s>", Tokenizer::Added::match},
                                                {"you", Tokenizer::Added::plain}};
    std::vector<int32_t> ids;
    t->encode_parts(parts, ids);
    EXPECT_EQ(ids, t->encode("<s>Hey</s>you")) << name;
  }
}

std::string full_sets() {
  const char* dir = std::getenv("BIRKHOFF_DATA");
  return dir ? std::string(dir) + "/tokenizers/" : "";
}

TEST(TokenizerGolden, FullSets) {
  const std::string dir = full_sets();
  if (dir.empty()) GTEST_SKIP() << "BIRKHOFF_DATA is not set";
  for (const std::string name : {"coder", "llm", "v3", "v4"})
    compare(dir + "deepseek_" + name, dir + "golden_" + name + ".jsonl", true);
  compare(dir + "llama2", dir + "golden_llama2.jsonl", true);
}

// Strings separated by a line, ids a line each.
TEST(TokenizerGolden, SamplePairs) {
  const std::string dir = full_sets();
  if (dir.empty()) GTEST_SKIP() << "BIRKHOFF_DATA is not set";
  for (const std::string name : {"deepseek_coder", "deepseek_llm", "llama2"}) {
    const auto t = Tokenizer::open(dir + name);
    std::stringstream in;
    in << std::ifstream(dir + name + "/samples.inp", std::ios::binary).rdbuf();
    std::ifstream expected(dir + name + "/samples.out");
    const std::string all = in.str(), separator = "\n__ggml_vocab_test__\n";
    int count = 0;
    for (size_t at = 0; at < all.size(); ++count) {
      const size_t end = std::min(all.find(separator, at), all.size());
      const std::string text = all.substr(at, end - at);
      at = end + separator.size();
      std::string line;
      ASSERT_TRUE(std::getline(expected, line)) << name << " " << count;
      std::istringstream numbers(line);
      const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
      EXPECT_EQ(t->encode(text), ids) << name << " sample " << count << ": " << json(text).dump(-1, ' ', true);
    }
    EXPECT_EQ(count, 46) << name;
  }
}

// Hand-made tokenizers that use every component and flag.
TEST(TokenizerGolden, Components) {
  const std::string file = ::testing::TempDir() + "/component_tokenizer.json";
  int number = 0;
  for (const json& row : lines_of(kSmall + "components.jsonl")) {
    ++number;
    std::ofstream(file) << row["tokenizer"].dump();
    const auto t = Tokenizer::open(file);
    json shown = row["tokenizer"];
    shown["model"].erase("vocab");
    for (const json& c : row["cases"]) {
      const auto text = c["text"].get<std::string>();
      const auto ids = c["ids"].get<std::vector<int32_t>>();
      const std::string where = "line " + std::to_string(number) + " " + shown.dump(-1, ' ', true) + "\n text " +
                                c["text"].dump(-1, ' ', true);
      EXPECT_EQ(t->encode(text), ids) << where;
      EXPECT_EQ(t->encode_with_special(text), c["with_special"].get<std::vector<int32_t>>()) << where;
      EXPECT_EQ(t->decode(ids), c["decoded"].get<std::string>()) << where;
      EXPECT_EQ(t->decode(ids, true), c["decoded_plain"].get<std::string>()) << where;
    }
  }
  EXPECT_GE(number, 60);
}

}  // namespace
}  // namespace birkhoff::text
