// Text through a model with its tokenizer.
#include "infer/text_model.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/likelihood.h"
#include "infer/generation.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "support/tokenized_model.h"
#include "text/tokenizer/byte_level_json.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::TextModel;
using nlohmann::json;

const std::string kGolden = test::committed_dir() + "/tokenizers/";

infer::EngineOptions options() {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2, o.max_positions = 300;
  return o;
}

TEST(TextModel, PaddingRowsAreNeverWritten) {
  const TempDir dir;
  write_tokenized_model(dir.path(), "v3", 7);
  const Engine engine(dir.path(), options());
  const TextModel m(engine);
  const auto size = static_cast<size_t>(m.tokenizer()->size());
  std::vector<float> logits(size + 7, 0.f);
  for (size_t i = 0; i < 7; ++i) logits[size + i] = 50.f;  // far ahead of all others
  infer::GenerationOptions drawn, greedy;
  drawn.max_tokens = 500, drawn.through_ends = true, greedy.max_tokens = 1, greedy.sampling.temperature = 0;
  const std::atomic<bool> never{false};
  const auto feed = [&](std::span<const int32_t>, infer::TokenRole) { return std::span<const float>(logits); };
  const auto r = infer::generate(feed, &m, std::vector<int32_t>{5}, drawn, never, [&](const infer::GeneratedToken& t) {
    EXPECT_LT(static_cast<size_t>(t.id), size);
    return true;
  });
  EXPECT_EQ(r.tokens, 500);
  infer::generate(feed, &m, std::vector<int32_t>{5}, greedy, never, [&](const infer::GeneratedToken& t) {
    EXPECT_EQ(t.id, 0);
    return true;
  });
  EXPECT_TRUE(m.ends(m.tokenizer()->eos().value()));
  EXPECT_EQ(m.prompt("a")[0], m.tokenizer()->bos());
  EXPECT_EQ(m.prompt(""), (std::vector<int32_t>{*m.tokenizer()->bos()}));
}

TEST(TextModel, EndsAreReadFromTheConfigs) {
  const TempDir dir;
  write_tokenized_model(dir.path(), "v3", 0);
  std::ofstream(dir.path() + "/generation_config.json") << R"({"eos_token_id": [7, 9]})";
  const Engine engine(dir.path(), options());
  const TextModel m(engine);
  EXPECT_TRUE(m.ends(7) && m.ends(9) && m.ends(1) && !m.ends(8));
}

TEST(TextModel, ATokenizerLargerThanTheModelIsRefused) {
  const TempDir dir;
  write_tokenized_model(dir.path(), "v3", -3);
  const Engine engine(dir.path(), options());
  EXPECT_THROW(TextModel{engine}, Error);
}

TEST(TextModel, FillInTheMiddlePrompt) {
  const auto coder = text::Tokenizer::open(kGolden + "coder");
  const auto id = [&](const char* s) { return coder->id(s).value(); };
  std::vector<int32_t> expected = {id("<｜fim▁begin｜>")};
  coder->encode("def f(", expected);
  expected.push_back(id("<｜fim▁hole｜>"));
  coder->encode("return x<｜fim▁end｜>", expected);  // added tokens are tokens, as in the documents of training
  expected.push_back(id("<｜fim▁end｜>"));
  EXPECT_EQ(text::fim_prompt(*coder, "def f(", "return x<｜fim▁end｜>"), expected);
  EXPECT_THROW(text::fim_prompt(*text::Tokenizer::open(kGolden + "llm"), "a", "b"), Error);
}

// The vocabulary that convert writes for a model of bytes, with rows behind it; and what is nearly one.
TEST(TextModel, AVocabularyOfBytesIsNoTokenizer) {
  const TempDir dir;
  model::ModelConfig c = small_config("plain", 1, false);
  c.vocab_size = 259;
  const SmallModel s(c, f32_t, 8, Exec(1));
  checkpoint::save_weights(dir.path(), *s.m, model::config_to_json(s.m->config), f32_t);
  const Engine engine(dir.path(), options());
  const auto opened = [&](auto&& edit) {
    json vocab = json::object();
    for (int b = 0; b < 256; ++b) vocab[text::to_symbols(std::string(1, static_cast<char>(b)))] = b;
    const json symbols = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    json file = text::byte_level_json({vocab, json::array(), json::array(), nullptr, symbols, nullptr});
    edit(file);
    dir.file("tokenizer.json", file.dump());
    return TextModel(engine);
  };
  const TextModel bytes = opened([](json&) {});
  EXPECT_FALSE(bytes.tokenizer());
  EXPECT_EQ(bytes.padding(), (std::vector<int32_t>{256, 257, 258}));
  EXPECT_EQ(bytes.prompt("\xff!"), (std::vector<int32_t>{255, '!'}));
  EXPECT_TRUE(opened([](json& f) { f["normalizer"] = {{"type", "NFC"}}; }).tokenizer());
  EXPECT_TRUE(opened([](json& f) { f["model"]["vocab"]["th"] = 256; }).tokenizer());
  EXPECT_TRUE(opened([](json& f) { std::swap(f["model"]["vocab"]["a"], f["model"]["vocab"]["b"]); }).tokenizer());
}

TEST(TextModel, EvalCountsBytesOfTheText) {
  const TempDir dir;
  write_tokenized_model(dir.path(), "v3", 0);
  const std::string text = "Shall I compare thee to a summer's day? Thou art more lovely — 日本.\n";
  std::string all;
  while (all.size() < 4000) all += text;
  std::ofstream(dir.path() + "/data.txt") << all;
  const Engine engine(dir.path(), options());
  const TextModel m(engine);
  const int64_t seq_len = 64;
  const eval::Likelihood r = eval::window_likelihood(engine, {dir.path() + "/data.txt"}, seq_len, false);
  std::vector<int32_t> ids = m.tokenizer()->encode(all);
  ids.push_back(*m.tokenizer()->eos());
  const int64_t windows = (static_cast<int64_t>(ids.size()) - 1) / seq_len;
  EXPECT_EQ(r.tokens, windows * seq_len);
  const std::vector<int32_t> predicted(ids.begin() + 1, ids.begin() + 1 + windows * seq_len);
  std::string bytes;
  for (const int32_t i : predicted)
    if (!m.tokenizer()->is_special(i)) m.tokenizer()->append_bytes(i, bytes);
  EXPECT_EQ(r.bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_NEAR(r.nats_per_byte() * static_cast<double>(r.bytes), r.nats_per_token() * static_cast<double>(r.tokens),
              1e-6);
}

// The released small model from text to text; in BIRKHOFF_DATA.
TEST(TextModel, Stories260K) {
  const char* data = std::getenv("BIRKHOFF_DATA");
  if (!data) GTEST_SKIP() << "BIRKHOFF_DATA is not set";
  const std::string dir = std::string(data) + "/weights/stories260K";
  const json golden = json::parse(std::ifstream(dir + "/golden.json"));
  const Engine engine(dir, options());
  const TextModel m(engine);
  infer::GenerationOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.through_ends = true;
  for (const json& g : golden["greedy"]) {
    const auto prompt = g["prompt"].get<std::string>();
    const std::vector<int32_t> fed = m.prompt(prompt);
    EXPECT_EQ(fed, g["prompt_ids"].get<std::vector<int32_t>>());
    const auto ids = g["ids"].get<std::vector<int32_t>>();
    infer::Session session(engine, 300);
    std::vector<int32_t> written;
    std::string text = prompt;
    greedy.max_tokens = static_cast<int64_t>(ids.size());
    const std::atomic<bool> never{false};
    const auto r =
        infer::generate(infer::feed_of(session), &m, fed, greedy, never, [&](const infer::GeneratedToken& t) {
          written.push_back(t.id);
          text += t.text;
          return true;
        });
    EXPECT_EQ(written, ids) << prompt;
    EXPECT_EQ(text + r.rest, g["text"].get<std::string>());
  }
}

}  // namespace
}  // namespace birkhoff::test
