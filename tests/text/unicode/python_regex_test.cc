#include "text/unicode/python_regex.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace birkhoff::text {
namespace {

// The matches, each in <>, a group after a bar; "-" for one that took no part.
std::string found(const std::string& pattern, const std::string& text) {
  std::string out;
  PythonRegex(pattern).find_all(text, [&](PythonRegex::Groups g) {
    out += "<";
    for (size_t i = 0; i < g.size(); ++i) out += (i > 0 ? "|" : "") + std::string(g[i].value_or("-"));
    out += ">";
    return true;
  });
  return out;
}

TEST(PythonRegex, FindsWhatReFinds) {
  EXPECT_EQ(found("(a)|b", "ab"), "<a|a><b|->");
  EXPECT_EQ(found("x*", "axb"), "<><x><><>") << "an empty match may stand behind another match";
  EXPECT_EQ(found("|a", "a"), "<><a><>");
  EXPECT_EQ(found("^b", "a\nb"), "");
  EXPECT_EQ(found("(?s)a.b", "a\nb"), "<a\nb>");
  EXPECT_EQ(found("b$", "b\n"), "<b>");
  EXPECT_EQ(found("b\\Z", "b\n"), "");
  EXPECT_EQ(found("(?P<n>a)(?P=n)", "aa"), "<aa|a>");
  EXPECT_EQ(found("\\u00e9|\\x41", "\u00e9A"), "<\u00e9><A>");
}

TEST(PythonRegex, ClassesArePythons) {
  EXPECT_EQ(found("\\w", "\u00bd\u0301_-"), "<\u00bd><_>") << "numbers are words, combining marks are not";
  EXPECT_EQ(found("\\d", "\u0665\u00b2"), "<\u0665>");
  EXPECT_EQ(found("\\s", "\x1c\u00a0x"), "<\x1c><\u00a0>");
  EXPECT_EQ(found("[\\W\\d]", "a1-"), "<1><->");
  EXPECT_EQ(found("[]a[&&b]", "]a[&b"), "<]><a><[><&><b>");
  EXPECT_EQ(found("\\ba\\b", "a\u0301a a"), "<a><a><a>");
}

TEST(PythonRegex, Replaces) {
  EXPECT_EQ(PythonRegex("(?s).*#### ").without("x\n#### 1 #### 2"), "2");
  EXPECT_EQ(PythonRegex("(\\d),").replaced("1,2,x,", [](PythonRegex::Groups g, std::string& o) { o += *g[1]; }),
            "12x,");
}

TEST(PythonRegex, RefusesAndGivesUp) {
  EXPECT_THROW(PythonRegex("("), Error);
  EXPECT_THROW(PythonRegex("\\h"), Error) << "a bad escape there";
  EXPECT_THROW(found("(a|aa)+$", std::string(200, 'a') + "b"), Error);
}

}  // namespace
}  // namespace birkhoff::text
