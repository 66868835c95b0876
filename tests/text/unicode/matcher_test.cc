// The scanners against Oniguruma, on random text made of the characters where their cases meet.
#include "text/unicode/matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

const char* const kPatterns[] = {
    "\\p{N}{1,3}",
    "\\p{N}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    kGpt2Pattern,
    kQwenPattern,
    kLlama3Pattern,
    "[\r\n]",
    "\\s?\\p{L}+",
    "\\s?\\p{P}+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u0370-\u0373\U00010400-\U0001044f]+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "\\s+$",
};

std::string random_text(std::mt19937& random, size_t length) {
  static const char32_t kChars[] = {' ',    ' ',    ' ',    '\n',   '\r',   '\t',   'a',     'Z',     's',     't',
                                    'r',    'e',    'v',    'l',    'd',    'm',    'S',     'L',     'R',     'E',
                                    0x17F,  '\'',   '\'',   '.',    '-',    '_',    '$',     '0',     '7',     0,
                                    0x1B,   0x7F,   0x85,   0xA0,   0xB5,   0xDF,   0xB2,    0xBD,    0x301,   0x1680,
                                    0x180E, 0x200B, 0x200D, 0x2028, 0x2160, 0x3000, 0x3001,  0x3042,  0x30FB,  0x4E00,
                                    0x9FA5, 0xAC00, 0xFF01, 0xFF21, 0xE000, 0xFFFF, 0x10400, 0x1F600, 0x1D7CE, 0xE0100};
  std::string s;
  for (size_t i = 0; i < length; ++i) append_char(kChars[random() % std::size(kChars)], s);
  return s;
}

std::vector<Span> found(const Matcher& m, const std::string& text) {
  std::vector<Span> spans;
  m.find(text, spans);
  return spans;
}

std::string shown(const std::vector<Span>& spans) {
  std::string s;
  for (const Span m : spans) s += std::to_string(m.begin) + "-" + std::to_string(m.end) + " ";
  return s;
}

TEST(Matcher, ScannersMatchAsOnigurumaDoes) {
  std::mt19937 random(1);
  for (const char* pattern : kPatterns) {
    const auto scanner = make_scanner(pattern), engine = make_oniguruma_matcher(pattern);
    ASSERT_TRUE(scanner) << pattern;
    for (int i = 0; i < 4000; ++i) {
      const std::string text = random_text(random, random() % 14);
      const auto a = found(*scanner, text), b = found(*engine, text);
      ASSERT_EQ(a, b) << pattern << "\n scanner " << shown(a) << "\n engine " << shown(b) << "\n text "
                      << ::testing::PrintToString(text);
    }
  }
}

TEST(Matcher, ClassesEqualTheEngineUpToItsUnicode) {
  const auto letters = make_scanner("\\p{L}"), engine = make_oniguruma_matcher("\\p{L}");
  const auto numbers = make_scanner("\\p{N}"), engine_numbers = make_oniguruma_matcher("\\p{N}");
  ASSERT_TRUE(letters && numbers);
  int differ = 0;
  for (char32_t c = 1; c < 0x30000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string s;
    append_char(c, s);
    const bool newer = found(*letters, s) != found(*engine, s) || found(*numbers, s) != found(*engine_numbers, s);
    // Debian's engine knows Unicode 14; letters that came later are unassigned there, never the other way round.
    if (newer) {
      ++differ;
      EXPECT_TRUE(found(*engine, s).empty() && found(*engine_numbers, s).empty())
          << std::hex << static_cast<uint32_t>(c);
    }
  }
  EXPECT_LT(differ, 6000);
}

TEST(Matcher, OtherPatternsGoToTheEngine) {
  EXPECT_FALSE(make_scanner("a|b"));
  EXPECT_FALSE(make_scanner("[^a]+"));
  EXPECT_FALSE(make_scanner("[a-z]+?"));
  EXPECT_FALSE(make_scanner("[]"));
  EXPECT_FALSE(make_scanner("[a-"));
  EXPECT_EQ(found(*make_regex_matcher("b+|(?=c)"), "abbcb"), (std::vector<Span>{{1, 3}, {4, 5}}));
  EXPECT_EQ(found(*make_literal_matcher("aa"), "aaaaa"), (std::vector<Span>{{0, 2}, {2, 4}}));
}

TEST(Matcher, BadPatternsAreNamed) {
  for (const std::string pattern : {"(", "[a", "a{2000}{2000}", "\xff", "(?<n>a)\\k<m>"}) {
    try {
      make_regex_matcher(pattern);
      ADD_FAILURE() << pattern;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("regular expression"), std::string::npos) << e.what();
    }
  }
}

TEST(Matcher, AnEngineThatGivesUpIsAnError) {
  const auto m = make_regex_matcher("(a+)+b");
  EXPECT_THROW(found(*m, std::string(200, 'a')), Error);
}

TEST(Unicode, ClassesAndWhiteSpace) {
  const ClassTable& k = char_classes();
  EXPECT_EQ(k('a'), CharClass::letter);
  EXPECT_EQ(k(0x301), CharClass::mark);
  EXPECT_EQ(k('7'), CharClass::decimal);
  EXPECT_EQ(k(0x2160), CharClass::letter_number);
  EXPECT_EQ(k(0xBD), CharClass::other_number);
  EXPECT_EQ(k('_'), CharClass::connector);
  EXPECT_EQ(k('+'), CharClass::symbol);
  EXPECT_EQ(k(0x10FFFF), CharClass::other);
  EXPECT_EQ(k(0x105C0), CharClass::letter);  // Todhri, new in Unicode 16
  for (const char32_t c : {0x85, 0xA0, 0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000})
    EXPECT_TRUE(is_space(c)) << static_cast<uint32_t>(c);
  for (const char32_t c : {0x180E, 0x200B, 0x1C, 0x1F, 0xFEFF}) EXPECT_FALSE(is_space(c)) << static_cast<uint32_t>(c);
  EXPECT_TRUE(is_word('_') && is_word(0x24B6) && is_word(0x200D) && is_word(0x301) && !is_word('-') && !is_word(0xBD));
}

TEST(Utf8, InvalidPartsAreFoundAndReplaced) {
  EXPECT_EQ(first_invalid("a\xC3\xA9\xF0\x9F\x98\x80"), 7u);
  EXPECT_EQ(first_invalid("ab\xC0\x80"), 2u);        // overlong
  EXPECT_EQ(first_invalid("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(first_invalid("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(replace_invalid("a\xF0\x9F\x98"
                            "b"),
            "a\uFFFDb");  // a cut character is one
  EXPECT_EQ(replace_invalid("\xE2\x28\xFF"), "\uFFFD(\uFFFD");
  EXPECT_EQ(open_tail("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(open_tail("a\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(open_tail("\xE2\x28"), 0u);
  EXPECT_EQ(open_tail("\x80\x80"), 0u);
}

}  // namespace
}  // namespace birkhoff::text
