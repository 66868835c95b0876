// Formulas in LaTeX, read as sympy 1.14 reads them (parse_latex with its ANTLR grammar), since the harness asks sympy
// whether two answers are equal. Some of that is not what an author means: juxtaposed letters are a product, \pi is a
// symbol, x(x+1) calls a function x, 2x3 is 6, and what follows a formula that is complete ("1,2") is left aside.
#pragma once
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace birkhoff::eval {

struct Formula {
  enum class Kind : uint8_t {
    number,    // name: "12", "0.5"
    symbol,    // name
    sum,       // of parts
    product,   // of parts
    power,     // of two parts
    call,      // a known function: factorial, binomial, abs, floor, ceil, log (to a base), sin, ...
    apply,     // an unknown function: f(x)
    relation,  // =, <, ...
    unknown    // integrals, sums, limits, derivatives, infinity
  };
  Kind kind = Kind::unknown;
  std::string name;
  std::vector<Formula> parts;
};

struct NoFormula : std::exception {};        // sympy refuses it
struct NoToken : std::exception {};          // the same, whatever stands before it: no way of reading avoids it
struct FormulaTooLarge : std::exception {};  // longer, deeper or more ambiguous than is looked at

// Throws NoFormula, NoToken, FormulaTooLarge.
Formula read_latex(const std::string& text);

}  // namespace birkhoff::eval
