#include "eval/scoring/math_value.h"

#include <algorithm>
#include <cmath>

#include "eval/scoring/formula_value.h"
#include "eval/scoring/python.h"

namespace birkhoff::eval {
namespace {

constexpr int kTrials = 4;
// Relative; rounding of long doubles stays below it in formulas that people write.
constexpr long double kClose = 1e-15L;

bool equal_modular(const Formula& a, const Formula& b) {
  for (int trial = 1; trial <= kTrials; ++trial)
    if (modular_value(a, trial) != modular_value(b, trial)) return false;
  return true;
}

bool equal_at_points(const Formula& a, const Formula& b) {
  for (int trial = 1; trial <= kTrials; ++trial) {
    const Complex x = complex_value(a, trial), y = complex_value(b, trial);
    const long double size = std::max({std::abs(x), std::abs(y), 1e-6L});
    if (!std::isfinite(size)) throw NotComputed();
    if (std::abs(x - y) > kClose * size) return false;
  }
  return true;
}

bool has_variables(const Formula& f) {
  return f.kind == Formula::Kind::symbol || f.kind == Formula::Kind::apply ||
         std::any_of(f.parts.begin(), f.parts.end(), has_variables);
}

}  // namespace

bool close_values(const std::string& a, const std::string& b, double tolerance) {
  try {
    const Formula x = read_latex(a), y = read_latex(b);
    if (has_variables(x) || has_variables(y)) return false;
    const Complex v = complex_value(x, 1), w = complex_value(y, 1);
    return v.imag() == 0 && w.imag() == 0 &&
           is_close(static_cast<double>(v.real()), static_cast<double>(w.real()), tolerance);
  } catch (const std::exception&) {
    return false;
  }
}

SameValue same_value(const std::string& a, const std::string& b) {
  try {
    const Formula x = read_latex(a), y = read_latex(b);
    if (x.kind == Formula::Kind::relation || y.kind == Formula::Kind::relation) return SameValue::no;
    try {
      return equal_modular(x, y) ? SameValue::yes : SameValue::no;
    } catch (const NotComputed&) {
      return equal_at_points(x, y) ? SameValue::yes : SameValue::no;
    }
  } catch (const NoFormula&) {
    return SameValue::no;
  } catch (const NoToken&) {
    return SameValue::no;
  } catch (const Undefined&) {
    return SameValue::no;
  } catch (const std::exception&) {  // NotComputed, FormulaTooLarge
    return SameValue::unknown;
  }
}

}  // namespace birkhoff::eval
