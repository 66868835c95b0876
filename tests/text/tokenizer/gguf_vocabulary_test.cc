// Tokenizers of directories in the metadata of GGUF files, and back in directories: the same ids and special tokens.
#include "text/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/gguf_writer.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "text/chat/chat_format.h"
#include "text/tokenizer/bpe_trainer.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

constexpr int64_t kPaddingRows = 5;

// A GGUF file without tensors that holds the tokenizer of a directory.
std::string gguf_with(const TempDir& to, const std::string& directory, int64_t rows, bool bytes = false) {
  io::GgufMetadata m;
  put_gguf_tokenizer(m, directory, rows, bytes, chat::template_sources(directory));
  const std::string path = to / "m.gguf";
  io::GgufWriter(path, m, {}).finish();
  return path;
}

const std::vector<std::string>& texts() {
  static const std::vector<std::string> list = {"",
                                                " ",
                                                "Hello, world! 12345 3.14",
                                                "  two  spaces\t\ttabs\n\n\nlines\r\n",
                                                "Ünïcödé 日本語 한국어 🙂👩‍👩‍👧",
                                                "it's I'LL def f(x): return x**2",
                                                "<｜begin▁of▁sentence｜>a<｜User｜>b<|endoftext|>"};
  return list;
}

void expect_same_text(const Tokenizer& a, const Tokenizer& b) {
  for (const std::string& text : texts()) {
    EXPECT_EQ(a.encode(text), b.encode(text)) << text;
    EXPECT_EQ(a.encode_with_special(text), b.encode_with_special(text)) << text;
    EXPECT_EQ(a.encode(text, Tokenizer::Added::plain), b.encode(text, Tokenizer::Added::plain)) << text;
    EXPECT_EQ(a.decode(b.encode(text)), a.decode(a.encode(text)));
  }
  EXPECT_EQ(a.bos(), b.bos());
  EXPECT_EQ(a.eos(), b.eos());
  EXPECT_EQ(a.pad(), b.pad());
  for (int32_t id = 0; id < a.size(); ++id) EXPECT_EQ(a.is_special(id), b.is_special(id)) << id;
}

void expect_round_trip(const std::string& directory) {
  SCOPED_TRACE(directory);
  TempDir dir;
  const auto whole = Tokenizer::open(directory);
  const std::string path = gguf_with(dir, directory, whole->size() + kPaddingRows);
  const auto file = Tokenizer::open(path);
  expect_same_text(*whole, *file);
  EXPECT_FALSE(file->token(whole->size()));  // a padding row is never written
  fs::create_directory(dir / "back");
  ASSERT_TRUE(write_gguf_tokenizer(io::GgufFile(path), dir / "back", chat::template_sources(path)));
  expect_same_text(*whole, *Tokenizer::open(dir / "back"));
  EXPECT_EQ(chat::template_sources(dir / "back"), chat::template_sources(directory));
}

TEST(GgufVocabulary, TokenizersOfDirectories) {
  int tried = 0;
  for (const auto& e : fs::directory_iterator(test::committed_dir() + "/tokenizers")) {
    if (!e.is_directory() || !Tokenizer::exists(e.path().string())) continue;
    TempDir dir;
    for (const auto& file : fs::directory_iterator(e)) fs::copy(file, dir / file.path().filename().string());
    dir.file("chat_template.jinja", "{{ messages[0].content }}");
    expect_round_trip(dir.path());
    ++tried;
  }
  EXPECT_GE(tried, 1);
}

TEST(GgufVocabulary, TrainedHere) {
  for (const std::string pattern : {"v3", "llm", "coder", "gpt2"}) {
    TempDir dir;
    const nlohmann::json splitting = pattern_pre_tokenizer(pattern);
    WordCounter words(splitting);
    words.add("the cat sat on the mat, the cat sat on the hat 123 456 123");
    const std::vector<std::string> specials = {"<|begin|>", "<|endoftext|>"};
    write_tokenizer(dir / "t", train_bpe(words.counts(), 280, specials), specials, splitting, "<|begin|>",
                    "<|endoftext|>");
    dir.file("t/generation_config.json", R"({"eos_token_id": [1, 0]})");
    expect_round_trip(dir / "t");
    const io::GgufFile f(gguf_with(dir, dir / "t", 300));
    EXPECT_EQ(f.text("tokenizer.ggml.pre"), pattern == "gpt2" ? "gpt-2" : "deepseek-" + pattern);
    EXPECT_EQ(f.natural("tokenizer.ggml.eot_token_id"), 0u);
    EXPECT_EQ(f.value("tokenizer.ggml.tokens")->count, 300u);
  }
}

TEST(GgufVocabulary, BytesAndNoTokenizer) {
  TempDir dir;
  const auto t = Tokenizer::open(gguf_with(dir, dir.path(), 260, true));
  const std::string text = "a\n é";
  std::vector<int32_t> bytes;
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  EXPECT_EQ(t->encode_with_special(text), bytes);
  EXPECT_EQ(t->decode(bytes), text);
  EXPECT_FALSE(t->token(256));
  EXPECT_FALSE(Tokenizer::exists(gguf_with(dir, dir.path(), 100)));
}

TEST(GgufVocabulary, Refused) {
  TempDir dir;
  const nlohmann::json splitting = pattern_pre_tokenizer("gpt2");
  write_tokenizer(dir / "t", train_bpe({}, 256, {}), {}, splitting, "", "");
  test::expect_error([&] { gguf_with(dir, dir / "t", 255); }, {"255"});
  nlohmann::json file = nlohmann::json::parse(test::read_file(dir / "t/tokenizer.json"));
  file["pre_tokenizer"]["use_regex"] = false;
  dir.file("t/tokenizer.json", file.dump());
  test::expect_error([&] { gguf_with(dir, dir / "t", 256); }, {"tokenizer.json", "splits text", "docs/gguf.md"});
}

}  // namespace
}  // namespace birkhoff::text
