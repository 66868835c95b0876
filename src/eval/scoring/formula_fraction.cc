#include <cstdlib>
#include <utility>

#include "eval/scoring/formula_value.h"

namespace birkhoff::eval {
namespace {

using Wide = __int128;

std::optional<Fraction> reduced(Wide above, Wide below) {
  if (below == 0) return std::nullopt;
  constexpr Wide kMost = INT64_MAX;
  if (below < 0) above = -above, below = -below;
  Wide a = above < 0 ? -above : above, b = below;
  while (b != 0) a = std::exchange(b, a % b);
  above /= a;
  below /= a;
  if (above > kMost || above < -kMost || below > kMost) return std::nullopt;
  return Fraction{static_cast<int64_t>(above), static_cast<int64_t>(below)};
}

std::optional<Fraction> times(const Fraction& x, const Fraction& y) {
  return reduced(Wide{x.above} * y.above, Wide{x.below} * y.below);
}
std::optional<Fraction> plus(const Fraction& x, const Fraction& y) {
  const Wide a = Wide{x.above} * y.below, b = Wide{y.above} * x.below;
  return reduced(a + b, Wide{x.below} * y.below);
}

std::optional<Fraction> fraction_number(const std::string& digits) {
  Fraction out;
  bool behind_point = false;
  const bool minus = digits[0] == '-';
  for (const char c : digits.substr(minus)) {
    if (c == '.') {
      behind_point = true;
      continue;
    }
    if (out.above > (INT64_MAX - 9) / 10 || out.below > INT64_MAX / 10) return std::nullopt;
    out.above = out.above * 10 + (c - '0');
    if (behind_point) out.below *= 10;
  }
  return reduced(minus ? -out.above : out.above, out.below);
}

std::optional<Fraction> fraction_power(const Fraction& base, const Fraction& exponent) {
  if (exponent.below != 1 || std::abs(exponent.above) > 64) return std::nullopt;
  Fraction out{1, 1};
  for (int64_t i = 0; i < std::abs(exponent.above); ++i) {
    const auto next = times(out, base);
    if (!next) return std::nullopt;
    out = *next;
  }
  return exponent.above < 0 ? reduced(out.below, out.above) : out;
}

// n (n - 1) ... of `count` factors over count!, so that it is a binomial coefficient.
std::optional<Fraction> fraction_binomial(const Fraction& n, const Fraction& count) {
  if (n.below != 1 || count.below != 1 || count.above > 100) return std::nullopt;
  if (count.above < 0) return Fraction{};
  std::optional<Fraction> out = Fraction{1, 1};
  for (int64_t i = 0; out && i < count.above; ++i)
    if (const auto factor = reduced(Wide{n.above} - i, i + 1)) out = times(*out, *factor);
  return out;
}

std::optional<Fraction> fraction_factorial(const Fraction& n) {
  if (n.below != 1 || n.above < 0 || n.above > 20) return std::nullopt;
  Fraction out{1, 1};
  for (int64_t i = 2; i <= n.above; ++i) out.above *= i;
  return out;
}

std::optional<Fraction> fraction_call(const Formula& f) {
  const auto x = fraction_value(f.parts[0]);
  if (!x) return std::nullopt;
  if (f.name == "binomial") {
    const auto k = fraction_value(f.parts[1]);
    return k ? fraction_binomial(*x, *k) : std::nullopt;
  }
  if (f.name == "factorial") return fraction_factorial(*x);
  if (f.name == "abs") return Fraction{std::abs(x->above), x->below};
  const int64_t rest = x->above % x->below, whole = x->above / x->below;
  if (f.name == "floor") return Fraction{whole - (rest < 0), 1};
  if (f.name == "ceil") return Fraction{whole + (rest > 0), 1};
  return std::nullopt;
}

}  // namespace

std::optional<Fraction> fraction_value(const Formula& f) {
  using Kind = Formula::Kind;
  if (f.kind == Kind::number) return fraction_number(f.name);
  if (f.kind == Kind::sum || f.kind == Kind::product) {
    Fraction total{f.kind == Kind::product, 1};
    for (const Formula& part : f.parts) {
      const auto p = fraction_value(part);
      const auto next = !p ? p : f.kind == Kind::sum ? plus(total, *p) : times(total, *p);
      if (!next) return std::nullopt;
      total = *next;
    }
    return total;
  }
  if (f.kind == Kind::power) {
    const auto base = fraction_value(f.parts[0]), exponent = fraction_value(f.parts[1]);
    return base && exponent ? fraction_power(*base, *exponent) : std::nullopt;
  }
  return f.kind == Kind::call ? fraction_call(f) : std::nullopt;
}

}  // namespace birkhoff::eval
