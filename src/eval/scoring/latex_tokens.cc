#include "eval/scoring/latex_tokens.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "eval/scoring/latex_formula.h"
#include "eval/scoring/python.h"

namespace birkhoff::eval {
namespace {

using TokenKind = LatexToken::Kind;

// Spacing and sizes, which mean nothing.
constexpr std::string_view kSkipped[] = {"\\thinspace", "\\medspace",     "\\thickspace",  "\\quad",
                                         "\\qquad",     "\\negthinspace", "\\negmedspace", "\\negthickspace",
                                         "\\left",      "\\right",        "\\vrule",       "\\vcenter",
                                         "\\vbox",      "\\vskip",        "\\vspace",      "\\hfil"};
constexpr std::string_view kSkippedSigns = ",:;!*-./\"(=";
constexpr std::string_view kRelations[] = {"\\neq", "\\leq", "\\le",   "\\leqq",    "\\leqslant",
                                           "\\geq", "\\ge",  "\\geqq", "\\geqslant"};
constexpr std::string_view kFunctions[] = {"exp",  "log",  "lg",     "ln",     "sin",    "cos",    "tan",    "csc",
                                           "sec",  "cot",  "arcsin", "arccos", "arctan", "arccsc", "arcsec", "arccot",
                                           "sinh", "cosh", "tanh",   "arsinh", "arcosh", "artanh"};
constexpr std::string_view kReserved[] = {"langle",         "rangle",   "lim",    "to",    "rightarrow",
                                          "Rightarrow",     "int",      "sum",    "prod",  "longrightarrow",
                                          "Longrightarrow", "lfloor",   "rfloor", "lceil", "rceil",
                                          "sqrt",           "overline", "times",  "cdot",  "div",
                                          "frac",           "dfrac",    "tfrac",  "binom", "dbinom",
                                          "tbinom",         "mathit"};

constexpr std::string_view kCharacters = "+-*/(){}[]|_^:!,.";

bool is_latex_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
template <class List>
bool is_one_of(const List& list, std::string_view s) {
  return std::find(std::begin(list), std::end(list), s) != std::end(list);
}

}  // namespace

bool is_function(std::string_view command) { return is_one_of(kFunctions, command); }
bool is_reserved(std::string_view command) { return is_one_of(kReserved, command); }

const LatexToken& LatexTokens::at(size_t i) {
  while (tokens_.size() <= i) tokens_.push_back(next());
  return tokens_[i];
}

// White space and what else means nothing, at i_.
bool LatexTokens::skip_one() {
  if (is_latex_space(text_[i_])) return ++i_, true;
  if (text_[i_] != '\\' || i_ + 1 == text_.size()) return false;
  if (kSkippedSigns.find(text_[i_ + 1]) != kSkippedSigns.npos) return i_ += 2, true;
  size_t end = i_ + 1;
  while (end < text_.size() && is_ascii_letter(text_[end])) ++end;
  const std::string_view word = std::string_view(text_).substr(i_, end - i_);
  const bool bar = (word == "\\left" || word == "\\right") && end < text_.size() && text_[end] == '|';
  if (bar || !is_one_of(kSkipped, word)) return false;
  return i_ = end, true;
}

LatexToken LatexTokens::next() {
  while (i_ < text_.size() && skip_one()) {
  }
  if (i_ == text_.size()) return {};
  const char c = text_[i_];
  if (c == '\\') return command();
  if (is_ascii_letter(c)) return letter();
  if (is_ascii_digit(c)) return ++i_, LatexToken{TokenKind::digit, {c}};
  if (c == '\'') {
    const size_t begin = i_;
    i_ = std::min(text_.find_first_not_of('\'', i_), text_.size());
    return {TokenKind::quotes, text_.substr(begin, i_ - begin)};
  }
  if (c == '&') {
    size_t equal = i_ + 1;
    while (equal < text_.size() && is_latex_space(text_[equal])) ++equal;
    if (equal == text_.size() || text_[equal] != '=') throw NoToken();
    return i_ = equal + 1, LatexToken{TokenKind::relation, "="};
  }
  if (c == '=' || c == '<' || c == '>') return ++i_, LatexToken{TokenKind::relation, {c}};
  if (kCharacters.find(c) == kCharacters.npos) throw NoToken();
  return ++i_, LatexToken{TokenKind::character, {c}};
}

LatexToken LatexTokens::command() {
  const size_t begin = i_++;
  if (i_ < text_.size() && (text_[i_] == '{' || text_[i_] == '}'))
    return ++i_, LatexToken{TokenKind::character, text_.substr(begin, 2)};
  while (i_ < text_.size() && is_ascii_letter(text_[i_])) ++i_;
  if (i_ == begin + 1) throw NoToken();
  const std::string word = text_.substr(begin, i_ - begin);
  if (word == "\\left" || word == "\\right") return ++i_, LatexToken{TokenKind::character, word + "|"};
  return {is_one_of(kRelations, word) ? TokenKind::relation : TokenKind::command, word};
}

// "dx" and "d\theta" are differentials wherever they stand.
LatexToken LatexTokens::letter() {
  const char c = text_[i_++];
  if (c != 'd') return {TokenKind::letter, {c}};
  size_t begin = i_;
  while (begin < text_.size() && is_latex_space(text_[begin])) ++begin;
  size_t end = begin;
  if (begin < text_.size() && is_ascii_letter(text_[begin])) {
    ++end;
  } else if (begin < text_.size() && text_[begin] == '\\') {
    end = ++begin;
    while (end < text_.size() && is_ascii_letter(text_[end])) ++end;
  }
  if (end == begin) return {TokenKind::letter, "d"};
  i_ = end;
  return {TokenKind::differential, text_.substr(begin, end - begin)};
}

}  // namespace birkhoff::eval
