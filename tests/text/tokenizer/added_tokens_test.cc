#include "text/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "text/tokenizer/json_tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

// Characters as tokens, ids in order of `tokens`; no merges.
json character_tokenizer(const std::vector<std::string>& tokens, const json& added, const json& normalizer = nullptr,
                         const json& decoder = nullptr) {
  json vocab = json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", normalizer},
          {"decoder", decoder},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
}

json added(int id, const std::string& content, bool lstrip, bool rstrip, bool normalized = false) {
  return {{"id", id},         {"content", content},       {"lstrip", lstrip},
          {"rstrip", rstrip}, {"normalized", normalized}, {"special", false}};
}

Ids encoded(const json& file, const std::string& text) {
  return parse_tokenizer_json(file.dump(), {})->Tokenizer::encode(text);
}

// Ids as `tokenizers` 0.23.3 gives them: a token whose characters an earlier one took as white space is found again as
// long as it has any of its own, counted from where the earlier one ends.
TEST(AddedTokens, WhatAnEarlierTokenStrippedIsWrittenOnlyWhenSomethingIsLeft) {
  const std::vector<std::string> letters = {"a", "x", "\n"};
  const json both = character_tokenizer(letters, json::array({added(3, "\n\n", true, true)}));
  EXPECT_EQ(encoded(both, "x\n\n\n\nx"), (Ids{1, 3, 1}));
  EXPECT_EQ(encoded(both, "\n\n\n\n\n"), Ids{3});
  const auto after_t = [&](bool lstrip, bool rstrip) {
    return character_tokenizer(letters, json::array({added(3, "T", false, true), added(4, "\n\n", lstrip, rstrip)}));
  };
  EXPECT_EQ(encoded(after_t(true, true), "T\n\n\n\n"), Ids{3});
  EXPECT_EQ(encoded(after_t(true, false), "T\n\n"), Ids{3});
  EXPECT_EQ(encoded(after_t(false, true), "T\n\n\n\n\na"), (Ids{3, 4, 4, 0}));
  EXPECT_EQ(encoded(after_t(false, false), "T\n\n\n\na"), (Ids{3, 4, 4, 0}));
  EXPECT_EQ(encoded(after_t(false, false), "T\n\n\na"), (Ids{3, 4, 2, 0}));
  EXPECT_EQ(encoded(character_tokenizer(letters, json::array({added(2, "\n", false, true)})), "\n\n\na"),
            (Ids{2, 2, 2, 0}));
}

TEST(AddedTokens, WhiteSpaceThatTokensStripIsReadOnce) {
  const std::string text = std::string(400000, '\n') + "a";
  for (const auto& [lstrip, rstrip] : {std::pair{true, false}, {false, true}, {true, true}}) {
    const auto t = parse_tokenizer_json(
        character_tokenizer({"a", "\n"}, json::array({added(1, "\n", lstrip, rstrip)})).dump(), {});
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = t->Tokenizer::encode(text);
    EXPECT_EQ(ids.size(), lstrip && rstrip ? 2u : 400001u);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5))
        << "read again for every token it takes minutes";
  }
}

// What a token is looked for as is what its id is decoded to.
TEST(AddedTokens, NormalizedTokensDecodeToTheirNormalizedContent) {
  const json llama = json::parse(
      R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
  const json spaces = json::parse(
      R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  const json tokens = json::array(
      {added(3, "Tok", false, false, true), added(4, "Two w", false, false, true), added(5, "Raw", false, false)});
  const auto t = parse_tokenizer_json(character_tokenizer({"a", "▁", "T"}, tokens, llama, spaces).dump(), {});
  EXPECT_EQ(t->decode(Ids{0, 3, 0}), "a Toka");
  EXPECT_EQ(t->decode(Ids{0, 4, 0}), "a Two wa");
  EXPECT_EQ(t->decode(Ids{0, 5, 0}), "aRawa");
  EXPECT_EQ(t->Tokenizer::encode("a Tok a"), (Ids{1, 0, 3, 1, 0}));
  EXPECT_EQ(t->id("Tok"), 3);
}

}  // namespace
}  // namespace birkhoff::text
