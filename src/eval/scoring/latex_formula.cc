#include "eval/scoring/latex_formula.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "eval/scoring/latex_reader.h"
#include "eval/scoring/python.h"

namespace birkhoff::eval {
namespace {

using FormulaKind = Formula::Kind;

constexpr size_t kMaxBytes = 20000;

Formula number(std::string digits) { return {FormulaKind::number, std::move(digits), {}}; }
Formula made(FormulaKind kind, std::vector<Formula> parts) { return {kind, "", std::move(parts)}; }
Formula call(std::string name, std::vector<Formula> parts) {
  return {FormulaKind::call, std::move(name), std::move(parts)};
}
Formula inverse(Formula f) { return made(FormulaKind::power, {std::move(f), number("-1")}); }
Formula negative(Formula f) { return made(FormulaKind::product, {number("-1"), std::move(f)}); }

bool has_symbols(const Formula& f) {
  return f.kind == FormulaKind::symbol || std::any_of(f.parts.begin(), f.parts.end(), has_symbols);
}

// Recursive descent with backtracking: where a formula may go on and what follows is no continuation, it ends.
class Parser : LatexReader {
 public:
  explicit Parser(const std::string& text) : LatexReader(text) {}

  Formula relation() {
    Formula left = sum();
    if (peek().kind != Token::Kind::relation) return left;
    ++at_;
    relation();
    return made(FormulaKind::relation, {});
  }

 private:
  Formula sum() {
    const Deeper deeper(*this);
    Formula left = product(false);
    for (;;) {
      auto more = attempt([&] {
        const bool minus = sees("-");
        if (!minus && !sees("+")) throw NoFormula();
        ++at_;
        Formula right = product(false);
        return minus ? negative(std::move(right)) : std::move(right);
      });
      if (!more) return left;
      left = made(FormulaKind::sum, {std::move(left), std::move(*more)});
    }
  }

  // no_calls: of what stands behind \sin without parentheses.
  Formula product(bool no_calls) {
    Formula left = unary(no_calls);
    for (;;) {
      auto more = attempt([&] {
        const bool times = takes_any({"*", "\\times", "\\cdot"});
        if (!times && !takes_any({"/", "\\div", ":"})) throw NoFormula();
        Formula right = unary(no_calls);
        return times ? std::move(right) : inverse(std::move(right));
      });
      if (!more) return left;
      left = made(FormulaKind::product, {std::move(left), std::move(*more)});
    }
  }

  Formula unary(bool no_calls) {
    const Deeper deeper(*this);
    if (take("+")) return unary(no_calls);
    if (take("-")) return negative(unary(no_calls));
    std::vector<Formula> factors{postfix(false)};
    while (auto more = attempt([&] { return postfix(no_calls); })) factors.push_back(std::move(*more));
    return juxtaposed(std::move(factors));
  }

  // An x between factors without symbols is a sign of multiplication.
  static Formula juxtaposed(std::vector<Formula> factors) {
    if (factors.size() == 1) return std::move(factors[0]);
    std::vector<Formula> kept;
    for (size_t i = 0; i < factors.size(); ++i) {
      const bool x = factors[i].kind == FormulaKind::symbol && factors[i].name == "x";
      if (x && i > 0 && i + 1 < factors.size() && !has_symbols(factors[i - 1]) && !has_symbols(factors[i + 1]))
        continue;
      kept.push_back(factors[i]);
    }
    return made(FormulaKind::product, std::move(kept));
  }

  Formula postfix(bool no_calls) {
    Formula f = power(no_calls);
    for (;;) {
      if (take("!")) {
        f = call("factorial", {std::move(f)});
      } else if (sees("|") && (peek(1).is("_") || peek(1).is("^"))) {
        auto at = attempt([&] { return evaluated_at(); });
        if (!at) return f;
        f = Formula{};
      } else {
        return f;
      }
    }
  }

  bool evaluated_at() {
    need("|");
    for (const char* sign : {"^", "_"})
      if (take(sign)) {
        need("{");
        relation();
        need("}");
      }
    return true;
  }

  Formula power(bool no_calls) {
    Formula base = component(no_calls);
    while (sees("^")) {
      auto exponent = attempt([&] { return script("^"); });
      if (!exponent) break;
      base = made(FormulaKind::power, {std::move(base), std::move(*exponent)});
      if (sees("_")) script("_");
    }
    return base;
  }

  // _a, ^12, _{expression}
  Formula script(const char* sign) {
    need(sign);
    if (!take("{")) return atom();
    Formula f = sum();
    need("}");
    return f;
  }

  Formula component(bool no_calls) {
    const Deeper deeper(*this);
    static constexpr std::pair<const char*, const char*> kGroups[] = {
        {"(", ")"}, {"[", "]"}, {"{", "}"}, {"\\{", "\\}"}};
    for (const auto& [open, close] : kGroups)
      if (take(open)) return closed(close);
    if (sees("|")) {
      if (bars_.close && at_ != bars_.first) throw NoFormula();
      return absolute();
    }
    if (take("\\lfloor")) return call("floor", {closed("\\rfloor")});
    if (take("\\lceil")) return call("ceil", {closed("\\rceil")});
    if (!no_calls)
      if (auto f = function()) return std::move(*f);
    return atom();
  }

  Formula closed(const char* close) {
    const Bars outside = std::exchange(bars_, {});
    Formula f = sum();
    bars_ = outside;
    need(close);
    return f;
  }

  // |x|; in it another | opens rather than closes, if that can be read to the end.
  Formula absolute() {
    need("|");
    const auto inside = [&](bool closes) {
      const Bars outside = std::exchange(bars_, {closes, at_});
      Formula f = sum();
      bars_ = outside;
      need("|");
      return call("abs", {std::move(f)});
    };
    if (auto f = attempt([&] { return inside(false); })) return std::move(*f);
    return inside(true);
  }

  std::optional<Formula> function() {
    if (peek().kind == Token::Kind::command) {
      const std::string name = peek().text.substr(1);
      if (is_function(name)) return named_function(name);
      if (name == "sqrt") return root();
      if (name == "overline") {
        ++at_;
        need("{");
        return call("conjugate", {closed("}")});
      }
      if (name == "int" || name == "sum" || name == "prod" || name == "lim") return calculus(name);
      if (is_reserved(name)) return std::nullopt;
    } else if (peek().kind != Token::Kind::letter) {
      return std::nullopt;
    }
    return attempt([&] {
      Formula f = symbol(true);
      need("(");
      f.kind = FormulaKind::apply;
      do f.parts.push_back(sum());
      while (take(","));
      need(")");
      return f;
    });
  }

  Formula named_function(std::string name) {
    ++at_;
    std::optional<Formula> base, exponent, *last = nullptr;
    for (int i = 0; i < 2; ++i)
      for (auto [sign, at] : {std::pair("_", &base), std::pair("^", &exponent)})
        if (!*at && sees(sign)) *(last = at) = script(sign);
    auto argument = attempt([&] { return argument_of_call(); });
    if (!argument && last != nullptr) argument = last_digit(**last);
    if (!argument) throw NoFormula();
    if (name == "lg" || name == "ln" || name == "log") {
      if (!base) base = name == "lg" ? number("10") : call("exp", {number("1")});
      Formula f = call("log", {std::move(*argument), std::move(*base)});
      return exponent ? made(FormulaKind::power, {std::move(f), std::move(*exponent)}) : f;
    }
    if (name.starts_with("arc") || name.starts_with("ar")) name = "a" + name.substr(name.starts_with("arc") ? 3 : 2);
    const bool arc = exponent && is_minus_one(*exponent) && name[0] != 'a' && name != "exp";
    Formula f = call((arc ? "a" : "") + name, {std::move(*argument)});
    return exponent && !arc ? made(FormulaKind::power, {std::move(f), std::move(*exponent)}) : f;
  }

  // The first of the arguments in parentheses, or what follows without.
  Formula argument_of_call() {
    auto first = attempt([&] {
      need("(");
      Formula f = sum();
      while (take(",")) sum();
      need(")");
      return f;
    });
    return first ? std::move(*first) : product(true);
  }

  // \log_28: where no argument follows a script of digits, its last one is the argument.
  std::optional<Formula> last_digit(Formula& script_number) {
    std::string& digits = script_number.name;
    if (script_number.kind != FormulaKind::number || digits.size() < 2 || !is_ascii_digit(digits[digits.size() - 2]) ||
        peek(0).kind == Token::Kind::digit || !tokens_.at(at_ - 1).is(digits.substr(digits.size() - 1).c_str()))
      return std::nullopt;
    digits.pop_back();
    --at_;
    return argument_of_call();
  }

  static bool is_minus_one(const Formula& f) {
    return f.kind == FormulaKind::product && f.parts.size() == 2 && f.parts[0].name == "-1" && f.parts[1].name == "1";
  }

  Formula root() {
    ++at_;
    Formula degree = number("2");
    if (take("[")) degree = closed("]");
    need("{");
    Formula base = closed("}");
    return made(FormulaKind::power, {std::move(base), inverse(std::move(degree))});
  }

  Formula calculus(const std::string& name) {
    ++at_;
    if (name == "lim") return limit();
    while (takes_any({"_", "^"}))
      if (take("{"))
        relation(), need("}");
      else
        atom();
    name == "int" ? sum() : product(false);
    return {};
  }

  Formula limit() {
    need("_");
    need("{");
    symbol(false);
    if (!takes_any({"\\to", "\\rightarrow", "\\Rightarrow", "\\longrightarrow", "\\Longrightarrow"})) throw NoFormula();
    sum();
    if (take("^")) {
      const bool braces = take("{");
      if (!takes_any({"+", "-"})) throw NoFormula();
      if (braces) need("}");
    }
    need("}");
    product(false);
    return {};
  }

  Formula atom() {
    const Token& t = peek();
    if (t.kind == Token::Kind::digit) return number(take_number());
    if (t.kind == Token::Kind::letter) return symbol(true);
    if (t.kind == Token::Kind::differential) return ++at_, Formula{FormulaKind::symbol, "d" + t.text, {}};
    if (t.kind != Token::Kind::command) throw NoFormula();
    const std::string name = t.text.substr(1);
    if (name == "frac" || name == "dfrac" || name == "tfrac") return fraction();
    if (name == "binom" || name == "dbinom" || name == "tbinom") return binomial();
    if (name == "mathit") return italic();
    if (is_reserved(name) || is_function(name)) throw NoFormula();
    Formula f = symbol(false);
    return name == "infty" ? Formula{} : f;
  }

  // A letter or command with its subscript; only letters are told apart by quotes.
  Formula symbol(bool with_quotes) {
    const Token& t = peek();
    Formula f{FormulaKind::symbol, t.kind == Token::Kind::command ? t.text.substr(1) : t.text, {}};
    with_quotes &= t.kind == Token::Kind::letter;
    ++at_;
    std::string quotes;
    if (peek().kind == Token::Kind::quotes) quotes = tokens_.at(at_++).text;
    if (sees("_")) f.name += "_{" + printed(script("_")) + "}";
    if (quotes.empty() && peek().kind == Token::Kind::quotes) quotes = tokens_.at(at_++).text;
    if (with_quotes) f.name += quotes;
    return f;
  }

  static std::string printed(const Formula& f) {
    if (f.kind == FormulaKind::number || f.kind == FormulaKind::symbol) return f.name;
    std::string out = "(" + std::to_string(static_cast<int>(f.kind)) + f.name;
    std::vector<std::string> parts;
    for (const Formula& p : f.parts) parts.push_back(printed(p));
    if (f.kind == FormulaKind::sum || f.kind == FormulaKind::product) std::sort(parts.begin(), parts.end());
    for (const std::string& p : parts) out += " " + p;
    return out + ")";
  }

  Formula fraction() {
    ++at_;
    const auto side = [&] {
      if (peek().kind == Token::Kind::digit) return number(tokens_.at(at_++).text);
      need("{");
      return closed("}");
    };
    const size_t above_at = at_;
    Formula above = side();
    const size_t below_at = at_;
    Formula below = side();
    if (is_derivative(above_at, below_at)) return {};
    return made(FormulaKind::product, {std::move(above), inverse(std::move(below))});
  }

  bool is_derivative(size_t above, size_t below) {
    if (!tokens_.at(above).is("{") || !tokens_.at(below).is("{")) return false;
    const Token& d = tokens_.at(below + 1);
    if (d.kind == Token::Kind::differential && tokens_.at(below + 2).is("}")) {
      const Token& top = tokens_.at(above + 1);
      return top.is("d") || top.kind == Token::Kind::differential;
    }
    return d.is("\\partial") && tokens_.at(below + 3).is("}") && tokens_.at(above + 1).is("\\partial");
  }

  Formula binomial() {
    ++at_;
    need("{");
    Formula n = closed("}");
    need("{");
    Formula k = closed("}");
    return call("binomial", {std::move(n), std::move(k)});
  }

  Formula italic() {
    ++at_;
    need("{");
    Formula f{FormulaKind::symbol, "", {}};
    while (peek().kind == Token::Kind::letter) f.name += tokens_.at(at_++).text;
    need("}");
    return f;
  }
};

// 010 is no number of sympy's.
bool has_padded_integer(const Formula& f) {
  return (f.kind == FormulaKind::number && f.name.size() > 1 && f.name[0] == '0' && f.name.find('.') == f.name.npos &&
          f.name.find_first_not_of('0') != f.name.npos) ||
         std::any_of(f.parts.begin(), f.parts.end(), has_padded_integer);
}

}  // namespace

Formula read_latex(const std::string& text) {
  if (text.size() > kMaxBytes) throw FormulaTooLarge();
  Formula f = Parser(stripped(text)).relation();
  if (has_padded_integer(f)) throw NoFormula();
  return f;
}

}  // namespace birkhoff::eval
