// Tokenizers from the metadata of GGUF files: ids of llama.cpp (equal to tokenizers and sentencepiece), splitting by
// name, and metadata that are refused.
#include "text/tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/gguf_copy.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/chat/chat_format.h"

namespace birkhoff::text {
namespace {

using test::GgufBytes;
using test::TempDir;
using Ids = std::vector<int32_t>;

std::string gguf_of(const std::string& model, const std::string& file) {
  return test::golden_dir() + "/gguf/models/" + model + "/" + file + ".gguf";
}

// llama.cpp without special tokens still cuts out those that are only user-defined: that text in parts.
Ids plain_ids(const Tokenizer& t, const std::string& text) {
  std::vector<Tokenizer::Part> parts;
  size_t at = 0;
  for (size_t i = 0; i < text.size(); ++i)
    for (const std::string_view mark : {"<｜User｜>", "<｜Assistant｜>"}) {
      if (!std::string_view(text).substr(i).starts_with(mark) || !t.id(mark)) continue;
      parts.push_back({std::string_view(text).substr(at, i - at), Tokenizer::Added::plain});
      parts.push_back({std::string_view(text).substr(i, mark.size()), Tokenizer::Added::match});
      at = i + mark.size();
    }
  parts.push_back({std::string_view(text).substr(at), Tokenizer::Added::plain});
  Ids ids;
  t.encode_parts(parts, ids);
  return ids;
}

TEST(GgufTokenizer, IdsOfLlamaCpp) {
  const std::vector<std::pair<std::string, std::string>> all = {
      {"coder", "q4_0"},   {"deepseek2", "q4_0"},  {"deepseek3", "q4_0"}, {"llama", "q4_0"},
      {"mixtral", "q4_0"}, {"llama_tied", "q8_0"}, {"deepseek", "q4_0"},  {"llama_k", "mix"}};
  int lines = 0;
  for (const auto& [model, file] : all) {
    std::ifstream in(test::golden_dir() + "/gguf/models/" + model + "/tokens.jsonl");
    if (!in && test::golden_dir() == test::committed_dir()) continue;
    ASSERT_TRUE(in) << model;
    const auto t = Tokenizer::open(gguf_of(model, file));
    for (std::string line; std::getline(in, line); ++lines) {
      const auto want = nlohmann::json::parse(line);
      const std::string text = want["text"];
      EXPECT_EQ(t->encode_with_special(text), want["ids_special"].get<Ids>()) << model << ": " << text;
      EXPECT_EQ(plain_ids(*t, text), want["ids"].get<Ids>()) << model << ": " << text;
      if (text.find("▁") != std::string::npos) continue;  // which SentencePiece reads as a space
      EXPECT_EQ(t->decode(want["ids"].get<Ids>()), text) << model;
    }
  }
  EXPECT_GE(lines, 30);
}

TEST(GgufTokenizer, SpecialTokensAndTemplates) {
  const std::string path = gguf_of("deepseek2", "q4_0");
  const auto t = Tokenizer::open(path);
  EXPECT_TRUE(Tokenizer::exists(path));
  EXPECT_EQ(t->bos(), 316);
  EXPECT_EQ(t->eos(), 317);
  EXPECT_EQ(t->pad(), 317);
  EXPECT_EQ(Ids(t->before().begin(), t->before().end()), Ids{316});
  EXPECT_EQ(t->size(), 320);
  EXPECT_TRUE(t->is_special(316));
  EXPECT_FALSE(t->is_special(318));  // user-defined
  const chat::ChatFormat format = chat::ChatFormat::open(path);
  EXPECT_EQ(format.eos(), "<｜end▁of▁sentence｜>");
}

TEST(GgufTokenizer, NamedTemplatesAndTheEncoderOfAnArchitecture) {
  TempDir dir;
  GgufBytes g;
  g.put("general.architecture", "deepseek32");
  EXPECT_EQ(chat::ChatFormat::open(dir.file("a", g.bytes())).parser(), "v3.2");
  g.put("general.architecture", "deepseek4");
  EXPECT_EQ(chat::ChatFormat::open(dir.file("v4", g.bytes())).parser(), "v4");
  g.put("tokenizer.chat_template", "plain");
  g.put("tokenizer.chat_template.tool_use", "tools");
  const auto format = chat::ChatFormat::open(dir.file("b", g.bytes()));
  EXPECT_EQ(format.render(chat::Value::list({}), {}, {}).bytes(), "plain");
  auto options = std::make_shared<chat::DictObject>();
  options->set("chat_template", chat::Value::string("tool_use"));
  EXPECT_EQ(format.render(chat::Value::list({}), {}, chat::Value::dict(options)).bytes(), "tools");
  g.put("general.architecture", "llama");
  g.drop("tokenizer.chat_template");
  g.drop("tokenizer.chat_template.tool_use");
  test::expect_error([&] { chat::ChatFormat::open(dir.file("c", g.bytes())); }, {"no chat template"});
}

// All bytes, digits that merge, and words.
GgufBytes byte_level(const char* pre) {
  GgufBytes g;
  std::vector<std::string> tokens, merges = {"1 2", "12 3", "1 23", "2 3", "123 4", "a b", "Ġ a"};
  for (int b = 0, others = 0; b < 256; ++b) {
    const bool keep = (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
    const int code = keep ? b : 256 + others++;
    tokens.push_back(code < 128
                         ? std::string(1, static_cast<char>(code))
                         : std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))});
  }
  for (const char* t : {"12", "123", "23", "1234", "ab", "Ġa", "whole", "<s>"}) tokens.push_back(t);
  std::vector<int32_t> types(tokens.size(), 1);
  types.back() = 3;
  g.put("tokenizer.ggml.model", "gpt2");
  g.put("tokenizer.ggml.pre", pre);
  g.put("tokenizer.ggml.tokens", GgufBytes::array, GgufBytes::raw_array(tokens));
  g.put("tokenizer.ggml.token_type", GgufBytes::array, GgufBytes::raw_array(GgufBytes::i32, types));
  g.put("tokenizer.ggml.merges", GgufBytes::array, GgufBytes::raw_array(merges));
  g.put("tokenizer.ggml.bos_token_id", static_cast<int>(tokens.size()) - 1);
  return g;
}

std::vector<std::string> pieces(const Tokenizer& t, const std::string& text) {
  std::vector<std::string> out;
  for (const int32_t id : t.encode(text)) out.push_back(*t.token(id));
  return out;
}

TEST(GgufTokenizer, SplitsByName) {
  using Pieces = std::vector<std::string>;
  TempDir dir;
  const auto of = [&](const char* pre) { return Tokenizer::open(dir.file("t.gguf", byte_level(pre).bytes())); };
  const Pieces single = {"1", "2", "3", "4"}, whole = {"1234"}, threes = {"123", "4"};
  for (const auto& [pre, want] : {std::pair{"deepseek-llm", single},
                                  {"deepseek-coder", single},
                                  {"deepseek-v3", threes},
                                  {"llama-bpe", threes},
                                  {"qwen2", single},
                                  {"deepseek-r1-qwen", single},
                                  {"smollm", single},
                                  {"gpt-2", whole},
                                  {"default", whole}})
    EXPECT_EQ(pieces(*of(pre), "1234"), want) << pre;
  EXPECT_EQ(pieces(*of("gpt-2"), " ab"), (Pieces{"Ġ", "ab"}));
  EXPECT_EQ(pieces(*of("llama-bpe"), "whole"), Pieces{"whole"});  // a token as it is, whatever the merges
  EXPECT_EQ(pieces(*of("gpt-2"), "whole").size(), 5u);
  EXPECT_EQ(of("qwen2")->encode("e\u0301"), of("gpt-2")->encode("\u00e9"));  // NFC
  EXPECT_TRUE(of("gpt-2")->before().empty());
  EXPECT_EQ(of("llama-bpe")->before().size(), 1u);
  GgufBytes g = byte_level("gpt-2");
  g.put("tokenizer.ggml.add_bos_token", true);
  EXPECT_EQ(Tokenizer::open(dir.file("t.gguf", g.bytes()))->before().size(), 1u);
}

TEST(GgufTokenizer, RefusesMetadata) {
  const auto refused = [](auto&& edit, std::vector<std::string> parts) {
    TempDir dir;
    GgufBytes g = byte_level("gpt-2");
    edit(g);
    const std::string path = dir.file("t.gguf", g.bytes());
    parts.push_back(path);
    test::expect_error([&] { Tokenizer::open(path); }, parts);
  };
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.pre", "viking"); }, {"\"viking\"", "deepseek-v3"});
  refused([](GgufBytes& g) { g.drop("tokenizer.ggml.pre"); }, {"tokenizer.ggml.pre is missing"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.model", "t5"); }, {"\"t5\"", "gpt2, llama"});
  refused([](GgufBytes& g) { g.drop("tokenizer.ggml.tokens"); }, {"tokenizer.ggml.tokens is missing"});
  refused([](GgufBytes& g) { g.drop("tokenizer.ggml.merges"); }, {"tokenizer.ggml.merges is missing"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.merges", GgufBytes::array, GgufBytes::raw_array({"ab"})); },
          {"merges: entry 0"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.merges", GgufBytes::array, GgufBytes::raw_array({"q q"})); },
          {"\"qq\""});
  refused(
      [](GgufBytes& g) {
        g.put("tokenizer.ggml.token_type", GgufBytes::array, GgufBytes::raw_array<int32_t>(GgufBytes::i32, {1}));
      },
      {"token_type has 1 entries", "264"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.bos_token_id", 999); }, {"bos_token_id is 999", "264"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.add_eos_token", true); }, {"add_eos_token is set"});
  refused([](GgufBytes& g) { g.put("tokenizer.ggml.model", "llama"); }, {"scores is missing"});
}

// The pieces of a serialised ModelProto as metadata.
GgufBytes sentencepiece_metadata(const std::string& model) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;
  size_t at = 0;
  const auto varint = [&](const std::string& s, size_t& i) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
      v |= static_cast<uint64_t>(s[i] & 127) << shift;
      if (!(s[i++] & 128)) return v;
    }
  };
  while (at < model.size()) {
    const uint64_t tag = varint(model, at), size = varint(model, at);  // all fields are messages
    if (tag == 10) {
      const std::string piece = model.substr(at, size);
      texts.emplace_back();
      scores.push_back(0);
      types.push_back(1);
      for (size_t i = 0; i < piece.size();) {
        const uint64_t field = varint(piece, i);
        if (field == 10) {
          const uint64_t n = varint(piece, i);
          texts.back() = piece.substr(i, n);
          i += n;
        } else if (field == 21) {
          std::memcpy(&scores.back(), piece.data() + i, 4);
          i += 4;
        } else {
          types.back() = static_cast<int32_t>(varint(piece, i));
        }
      }
    }
    at += size;
  }
  GgufBytes g;
  g.put("tokenizer.ggml.model", "llama");
  g.put("tokenizer.ggml.tokens", GgufBytes::array, GgufBytes::raw_array(texts));
  g.put("tokenizer.ggml.scores", GgufBytes::array, GgufBytes::raw_array(GgufBytes::f32, scores));
  g.put("tokenizer.ggml.token_type", GgufBytes::array, GgufBytes::raw_array(GgufBytes::i32, types));
  g.put("tokenizer.ggml.bos_token_id", 1);
  g.put("tokenizer.ggml.eos_token_id", 2);
  return g;
}

TEST(GgufTokenizer, SentencePieceFromTokensAndScores) {
  const std::string model = test::committed_dir() + "/tokenizers/sentencepiece/tokenizer.model";
  const auto want = Tokenizer::open(model);
  TempDir dir;
  GgufBytes g = sentencepiece_metadata(test::read_file(model));
  const auto got = Tokenizer::open(dir.file("t.gguf", g.bytes()));
  EXPECT_EQ(got->size(), want->size());
  EXPECT_EQ(Ids(got->before().begin(), got->before().end()), Ids{1});
  for (const char* text :
       {"Once upon a time", "  two  spaces ", "line\nbreak\t.", "\u00dcn\u00efc\u00f6de \u4e2d\U0001f600", "x"}) {
    EXPECT_EQ(got->encode(text), want->encode(text)) << text;
    EXPECT_EQ(got->decode(got->encode(text)), text);
  }
  EXPECT_EQ(got->encode("<s>a</s>").front(), 1);  // control tokens are matched in raw text
  EXPECT_NE(got->encode("<s>a</s>", Tokenizer::Added::plain).front(), 1);
  g.put("tokenizer.ggml.add_space_prefix", false);
  EXPECT_NE(Tokenizer::open(dir.file("n.gguf", g.bytes()))->encode("Once"), want->encode("Once"));
  // A token that is no text, or stands twice, is never written; the others keep their ids.
  std::vector<std::string> texts;
  for (int32_t i = 0; i < want->size(); ++i) texts.push_back(*want->token(i));
  texts[0] = "\xff\xfe";
  texts.back() = texts[texts.size() - 2];
  g.put("tokenizer.ggml.tokens", GgufBytes::array, GgufBytes::raw_array(texts));
  g.put("tokenizer.ggml.add_space_prefix", true);
  EXPECT_EQ(Tokenizer::open(dir.file("b.gguf", g.bytes()))->encode("Once upon"), want->encode("Once upon"));
}

}  // namespace
}  // namespace birkhoff::text
