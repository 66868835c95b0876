#include "eval/scoring/math_value.h"

#include <gtest/gtest.h>

namespace birkhoff::eval {
namespace {

TEST(MathValue, EqualFormulas) {
  const std::pair<const char*, const char*> pairs[] = {{"0.5", "\\frac{1}{2}"},
                                                       {"2\\sqrt{3}", "\\sqrt{12}"},
                                                       {"x^2+1", "1+x^2"},
                                                       {"(x+1)^2", "x^2+2x+1"},
                                                       {"3\\pi", "\\pi3"},
                                                       {"\\binom{5}{2}", "10"},
                                                       {"5!", "120"},
                                                       {"2^{100}", "1267650600228229401496703205376"},
                                                       {"\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"},
                                                       {"\\sqrt[3]{8}", "2"},
                                                       {"\\log_28", "3"},
                                                       {"4:3", "\\frac43"},
                                                       {"1,234", "1234"},
                                                       {"1,2", "1,3"},
                                                       {"2x3", "6"},
                                                       {"x^-1", "x"},
                                                       {"|-3|", "3"},
                                                       {"|2||3|", "6"},
                                                       {"\\frac{x^2-1}{x-1}", "x+1"},
                                                       {"even", "neve"},
                                                       {"\\lfloor3.5\\rfloor", "3"},
                                                       {"1-", "1"}};
  for (const auto& [a, b] : pairs) EXPECT_EQ(same_value(a, b), SameValue::yes) << a << " " << b;
}

TEST(MathValue, DifferentFormulas) {
  const std::pair<const char*, const char*> pairs[] = {{"0.333", "\\frac{1}{3}"},
                                                       {"3\\pi", "9.42"},
                                                       {"x", "y"},
                                                       {"x(x+1)", "x^2+x"},
                                                       {"\\sqrt{x^2}", "x"},
                                                       {"2^{100}", "1267650600228229401496703205377"},
                                                       {"(2,5)", "(2,5)"},
                                                       {"x<2", "x<2"},
                                                       {"", ""},
                                                       {"50\\%", "50"},
                                                       {"5.", "5"},
                                                       {"\\frac{1}{0}", "\\frac{1}{0}"},
                                                       {"\\sqrt3", "\\sqrt{3}"},
                                                       {"\\begin{pmatrix}1\\\\2\\end{pmatrix}", "1"}};
  for (const auto& [a, b] : pairs) EXPECT_EQ(same_value(a, b), SameValue::no) << a << " " << b;
}

TEST(MathValue, BeyondWhatIsComputed) {
  EXPECT_EQ(same_value("\\int x dx", "\\frac{x^2}{2}"), SameValue::unknown);
  EXPECT_EQ(same_value("-\\infty", "\\infty"), SameValue::unknown);
  EXPECT_EQ(same_value(std::string(30000, '1'), "1"), SameValue::unknown);
  EXPECT_EQ(same_value(std::string(5000, '('), "1"), SameValue::unknown);
  std::string calls;
  for (int i = 0; i < 60; ++i) calls += "x(";
  EXPECT_EQ(same_value(calls, "x"), SameValue::unknown) << "as many ways to read it as 2^60";
}

}  // namespace
}  // namespace birkhoff::eval
