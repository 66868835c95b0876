#include "text/tokenizer/directory_settings.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/golden.h"
#include "support/temp_dir.h"

namespace birkhoff::text {
namespace {

using Ids = std::vector<int32_t>;

// A tokenizer.json without added tokens, and what the files beside it say. Ids as AutoTokenizer of transformers 5.24
// gives them.
class NamedTokens : public ::testing::Test {
 protected:
  NamedTokens() {
    std::ofstream(dir_.path() + "/tokenizer.json")
        << R"({"version": "1.0", "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "merges": [],
      "vocab": {"a": 0, "b": 1, " ": 2, "<": 3, ">": 4, "x": 5, "s": 6, "y": 7, "<x>": 8, "<s>": 9}}})";
  }
  std::shared_ptr<const Tokenizer> with(const std::string& content, const char* name = "tokenizer_config.json") {
    std::ofstream(dir_.path() + "/" + name) << content;
    return Tokenizer::open(dir_.path());
  }
  const test::TempDir dir_;
  const std::string text_ = "a <x> b<s>y";
  const Ids only_x_{0, 2, 8, 2, 1, 3, 6, 4, 7}, both_{0, 2, 8, 2, 1, 9, 7}, none_{0, 2, 3, 5, 4, 2, 1, 3, 6, 4, 7};
};

TEST_F(NamedTokens, SpecialTokensOfTheConfigAreTokens) {
  EXPECT_EQ(with("{}")->encode(text_), none_);
  const auto t = with(R"({"unk_token": "<x>"})");
  EXPECT_EQ(t->encode(text_), only_x_);
  EXPECT_EQ(t->encode("<x>", Tokenizer::Added::plain), (Ids{3, 5, 4}));
  EXPECT_EQ(t->decode(only_x_, true), "a  b<s>y");
  EXPECT_EQ(with(R"({"additional_special_tokens": ["<x>", {"content": "<s>", "lstrip": false}]})")->encode(text_),
            both_);
  EXPECT_EQ(with(R"({"extra_special_tokens": {"image_token": "<x>"}})")->encode(text_), only_x_);
  EXPECT_EQ(with(R"({"image_token": "<x>", "bos_token": {"content": "<s>", "normalized": true, "rstrip": true}})")
                ->encode(text_),
            both_);
  EXPECT_EQ(with(R"({"unk_token": "<zz>", "add_prefix_token": true})")->encode(text_),
            none_);  // nothing that the vocabulary holds
}

TEST_F(NamedTokens, OldFilesAreReadWhereTheConfigHasNoTokenTable) {
  EXPECT_EQ(with(R"({"bos_token": {"content": "<s>", "normalized": true}, "additional_special_tokens": ["<x>"]})",
                 "special_tokens_map.json")
                ->encode(text_),
            both_);
  EXPECT_EQ(with(R"({"added_tokens_decoder": {"8": {"content": "<x>", "special": true, "normalized": false}}})")
                ->encode(text_),
            only_x_);
  std::filesystem::remove(dir_.path() + "/special_tokens_map.json");
  with(R"({"bos_token": "<s>"})");
  const auto t = with(R"({"<y>": 10, "<s>": 9})", "added_tokens.json");
  EXPECT_EQ(t->encode("a<y>b<s>"), (Ids{0, 10, 1, 9}));
  EXPECT_EQ(t->decode(Ids{0, 10, 1, 9}, true), "a<y>b");
  EXPECT_EQ(t->files().size(), 3u);
  EXPECT_ANY_THROW(with(R"({"<y>": "ten"})", "added_tokens.json"));
}

// The distilled Qwen models: config.json gives the end's id as the beginning's, the tokenizer's files name the right
// one.
TEST_F(NamedTokens, ANameCountsBesideAnIdOfTheModel) {
  with(R"({"model_type": "qwen2", "bos_token_id": 9, "eos_token_id": [9, 7]})", "config.json");
  EXPECT_EQ(with("{}")->bos(), 9) << "nobody else says one";
  const auto t =
      with(R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": {"__type": "AddedToken", "content": "<x>"},
      "eos_token": {"__type": "AddedToken", "content": "<s>"}, "add_bos_token": true, "add_eos_token": false})");
  EXPECT_EQ(t->bos(), 8);
  EXPECT_EQ(t->eos(), 9);
  EXPECT_EQ(t->encode_with_special("a"), (Ids{8, 0}));
}

TEST(SentencePieceDirectory, SpecialTokensByNameAreCutOutOfText) {
  const test::TempDir dir;
  std::filesystem::copy(test::committed_dir() + "/tokenizers/sentencepiece/tokenizer.model",
                        dir.path() + "/tokenizer.model");
  const auto bare = Tokenizer::open(dir.path());
  std::ofstream(dir.path() + "/special_tokens_map.json")
      << R"({"bos_token": {"content": "<s>", "normalized": true}, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": null})";
  const auto t = Tokenizer::open(dir.path());
  const Ids ids = t->encode("a</s>");
  EXPECT_EQ(ids.back(), 2);
  EXPECT_EQ(t->decode(ids), "a</s>");
  EXPECT_EQ(t->decode(ids, true), "a");
  EXPECT_EQ(t->encode("a</s>", Tokenizer::Added::plain), bare->encode("a</s>"));
}

}  // namespace
}  // namespace birkhoff::text
