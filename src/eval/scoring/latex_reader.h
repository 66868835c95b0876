// How a formula in LaTeX is read: a token ahead, back to where a way of reading began that failed.
#pragma once
#include <algorithm>
#include <initializer_list>
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

  // 12, 1,234.5; a comma that no three digits follow ends it.
  std::string take_number() {
    std::string out;
    while (peek().kind == Token::Kind::digit) out += tokens_.at(at_++).text;
    while (sees(",")) {
      size_t n = 0;
      while (n < 3 && peek(1 + n).kind == Token::Kind::digit) ++n;
      if (n < 3) break;
      for (size_t i = 1; i <= 3; ++i) out += peek(i).text;
      at_ += 4;
    }
    if (!take(".")) return out;
    if (peek().kind != Token::Kind::digit) throw NoFormula();
    out += '.';
    while (peek().kind == Token::Kind::digit) out += tokens_.at(at_++).text;
    return out;
  }

  LatexTokens tokens_;
  size_t at_ = 0;
  int depth_ = 0, attempts_ = 0;
  Bars bars_;
};

}  // namespace birkhoff::eval
