// Text that makes careless tokenizers quadratic: the work must grow with the length, and the text must come back.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "core/error.h"
#include "support/golden.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {
namespace {

const std::string kTokenizers = test::committed_dir() + "/tokenizers/";
constexpr double kSeconds = 10;  // a quadratic scan of the long form takes minutes; sanitizers take ten times the time

struct Hostile {
  const char* name;
  std::string part, end;
};
const std::vector<Hostile>& hostile() {
  static const std::vector<Hostile> all = {
      {"one letter", "a", ""},
      {"spaces before a letter", " ", "x"},
      {"spaces", " ", ""},
      {"ideographic spaces before a letter", "\u3000", "x"},
      {"line feeds", "\n", "x"},
      {"carriage returns and spaces", " \r", "x"},
      {"combining marks", "\u0301", ""},
      {"marks of two orders", "\u0301\u0323", "a"},
      {"emoji sequences", "\U0001F469\u200D", ""},
      {"NUL", std::string(1, '\0'), "a"},
      {"pieces of special tokens", "<｜place▁holder▁no", "x"},
      {"starts of special tokens", "<｜", "x"},
      {"digits", "7", "a"},
      {"apostrophes", "'", "s"},
      {"Hangul", "가", ""},
      {"punctuation", "!", "\n"},
      {"controls", "\x1b", ""},
  };
  return all;
}

std::string repeated(const Hostile& h, size_t bytes) {
  std::string s;
  while (s.size() < bytes) s += h.part;
  return s + h.end;
}

std::string replaced(std::string s, const std::string& from, const std::string& to) {
  std::string out;
  for (size_t at = 0, next; at < s.size(); at = next + from.size()) {
    next = std::min(s.find(from, at), s.size());
    out.append(s, at, next - at);
    if (next < s.size()) out += to;
  }
  return out;
}

double seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Hostile, TimeGrowsWithTheLengthAndTheTextComesBack) {
  for (const std::string name : {"v3", "llm", "coder", "sentencepiece"}) {
    const auto t = Tokenizer::open(kTokenizers + name);
    for (const Hostile& h : hostile()) {
      const std::string text = repeated(h, 300'000);
      std::vector<int32_t> ids;
      EXPECT_LT(seconds([&] { ids = t->encode(text); }), kSeconds) << name << ", " << h.name;
      // SentencePiece writes spaces as U+2581, so that one comes back as a space.
      EXPECT_EQ(t->decode(ids) == (name == "sentencepiece" ? replaced(text, "\u2581", " ") : text), true)
          << name << ", " << h.name;
    }
  }
}

// A long piece is cut as a short one: ids of a repetition settle into a period.
TEST(Hostile, LongPiecesAreMergedLikeShortOnes) {
  const auto t = Tokenizer::open(kTokenizers + "v3");
  const std::vector<int32_t> some = t->encode(std::string(4096, 'a')), more = t->encode(std::string(65536, 'a'));
  EXPECT_EQ(more.size(), 16 * some.size());
  EXPECT_TRUE(std::equal(some.begin(), some.end(), more.begin()));
}

TEST(Hostile, BytesThatAreNoTextAreRefused) {
  const auto t = Tokenizer::open(kTokenizers + "v3");
  for (const std::string bytes : {"\xFF", "\xC3", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\x80"}) {
    std::string text(100'000, 'a');
    EXPECT_THROW(t->encode(text + bytes), Error);
  }
}

}  // namespace
}  // namespace birkhoff::text
