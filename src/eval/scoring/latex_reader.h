// How a formula in LaTeX is read: a token ahead, back to where a way of reading began that failed.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "eval/scoring/latex_formula.h"
#include "eval/scoring/latex_tokens.h"

namespace birkhoff::eval {

class LatexReader {
 protected:
  static constexpr int kMaxDepth = 100, kMaxAttempts = 50000;
  using Token = LatexToken;
  explicit LatexReader(const std::string& text) : tokens_(text) {}

  struct Bars {
    bool close = false;  // in |x|: a | ends it
    size_t first = 0;    // but for one that stands first
  };
  struct Deeper {
    explicit Deeper(LatexReader& p) : parser(p) {
      if (++p.depth_ > kMaxDepth || ++p.attempts_ > kMaxAttempts) throw FormulaTooLarge();
    }
    ~Deeper() { --parser.depth_; }
    LatexReader& parser;
  };

  const Token& peek(size_t ahead = 0) { return tokens_.at(at_ + ahead); }
  bool sees(const char* s) { return peek().is(s); }
  bool take(const char* s) { return sees(s) ? (++at_, true) : false; }
  void need(const char* s) {
    if (!take(s)) throw NoFormula();
  }
  bool takes_any(std::initializer_list<const char*> list) {
    return std::any_of(list.begin(), list.end(), [&](const char* s) { return take(s); });
  }
  // What f reads; nothing, and back where it began, where it fails.
  template <class F>
  auto attempt(F&& f) -> std::optional<decltype(f())> {
    const size_t begin = at_;
    const Bars bars = bars_;
    try {
      return f();
    } catch (const NoFormula&) {
      at_ = begin;
      bars_ = bars;
      return std::nullopt;
    }
  }

  // How many digits stand from there on, at most three.
  size_t digits_at(size_t ahead) {
    size_t n = 0;
    while (n < 3 && peek(ahead + n).kind == Token::Kind::digit) ++n;
    return n;
  }

  // Whether an operator stands before a token.
  bool begins_operand(size_t i) {
    static constexpr const char* kOperators[] = {"+", "-", "*", "/", ":", "^", "\\cdot", "\\times", "\\div"};
    return i == 0 || std::any_of(std::begin(kOperators), std::end(kOperators),
                                 [&](const char* o) { return tokens_.at(i - 1).is(o); });
  }

  // 12, 1,234.5; a comma that no three digits follow ends it. Where a point follows that begins no decimals, fewer
  // digits are taken, as sympy's parser does looking for a way to go on: 15. is 1, 3.55. is 3.5, 1.25.5 is 1.2 and 5.5.
  std::string take_number() {
    const size_t first = at_;
    const auto take_digits = [&] {
      const size_t begin = at_;
      while (peek().kind == Token::Kind::digit) ++at_;
      return at_ - begin;
    };
    const size_t whole = take_digits();
    while (sees(",") && digits_at(1) == 3) at_ += 4;
    const bool commas = at_ > first + whole;
    if (sees(".") && digits_at(1) == 0) {
      if (whole == 1 && !commas) begins_operand(first) ? throw NoToken() : throw NoFormula();
      at_ = first + (commas ? whole : 1);
    } else if (take(".")) {
      const size_t decimals = take_digits();
      if (decimals > 1 && (sees(".") || (sees(",") && digits_at(1) == 3))) --at_;
    }
    std::string out;
    for (size_t i = first; i < at_; ++i)
      if (!tokens_.at(i).is(",")) out += tokens_.at(i).text;
    return out;
  }

  LatexTokens tokens_;
  size_t at_ = 0;
  int depth_ = 0, attempts_ = 0;
  Bars bars_;
};

}  // namespace birkhoff::eval
