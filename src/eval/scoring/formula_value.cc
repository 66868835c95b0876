#include "eval/scoring/formula_value.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <string_view>

namespace birkhoff::eval {
namespace {

using FormulaKind = Formula::Kind;

constexpr int64_t kMaxFactorial = 100000;

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
uint64_t hash_of(std::string_view name, int trial) {
  uint64_t h = static_cast<uint64_t>(trial) + 1;
  for (const char c : name) h = mixed(h ^ static_cast<unsigned char>(c));
  return mixed(h);
}

uint64_t mod_times(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b % kPrime);
}
uint64_t mod_power(uint64_t base, uint64_t exponent) {
  uint64_t out = 1;
  for (; exponent != 0; exponent >>= 1, base = mod_times(base, base))
    if (exponent & 1) out = mod_times(out, base);
  return out;
}
uint64_t mod_inverse(uint64_t a) {
  if (a == 0) throw Undefined();
  return mod_power(a, kPrime - 2);
}
uint64_t mod_integer(int64_t i) {
  const uint64_t m = static_cast<uint64_t>(std::abs(i)) % kPrime;
  return i < 0 && m != 0 ? kPrime - m : m;
}

uint64_t mod_number(const std::string& digits) {
  uint64_t value = 0, scale = 1;
  bool behind_point = false;
  for (const char c : digits) {
    if (c == '-') continue;
    if (c == '.') {
      behind_point = true;
      continue;
    }
    value = (mod_times(value, 10) + static_cast<uint64_t>(c - '0')) % kPrime;
    if (behind_point) scale = mod_times(scale, 10);
  }
  if (digits[0] == '-' && value != 0) value = kPrime - value;
  return mod_times(value, mod_inverse(scale));
}

int64_t integer_value(const Formula& f) {
  const auto x = fraction_value(f);
  if (!x || x->below != 1) throw NotComputed();
  return x->above;
}

uint64_t mod_binomial(int64_t n, int64_t k) {
  if (k < 0 || (n >= 0 && k > n)) return 0;
  if (n >= 0) k = std::min(k, n - k);
  if (k > kMaxFactorial) throw NotComputed();
  uint64_t above = 1, below = 1;
  for (int64_t i = 0; i < k; ++i) {
    above = mod_times(above, mod_integer(n - i));
    below = mod_times(below, static_cast<uint64_t>(i + 1));
  }
  return mod_times(above, mod_inverse(below));
}

uint64_t mod_call(const Formula& f) {
  if (f.name == "binomial") return mod_binomial(integer_value(f.parts[0]), integer_value(f.parts[1]));
  if (f.name == "factorial") {
    const int64_t n = integer_value(f.parts[0]);
    if (n < 0) throw Undefined();
    if (n > kMaxFactorial) throw NotComputed();
    uint64_t out = 1;
    for (int64_t i = 2; i <= n; ++i) out = mod_times(out, static_cast<uint64_t>(i));
    return out;
  }
  const auto x = fraction_value(f);
  if (!x) throw NotComputed();
  return mod_times(mod_integer(x->above), mod_inverse(mod_integer(x->below)));
}

long double decimal(const std::string& digits) {
  long double out = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return out;
}

// Values of magnitude about 1, off the real axis, in all quadrants.
Complex point_of(std::string_view name, int trial) {
  const uint64_t h = hash_of(name, trial);
  const long double radius = 0.5L + static_cast<long double>(h >> 32) / 4294967296.L;
  const long double angle = 0.1L + 6.L * static_cast<long double>(h & 0xffffffff) / 4294967296.L;
  return std::polar(radius, angle);
}

Complex complex_power(const Formula& f, const Complex& base, int trial) {
  const auto exponent = fraction_value(f.parts[1]);
  if (base == Complex{0} && (!exponent || exponent->above < 0)) throw Undefined();
  if (exponent && exponent->below == 1 && std::abs(exponent->above) <= 1000) {
    Complex out{1};
    for (int64_t i = 0; i < std::abs(exponent->above); ++i) out *= base;
    return exponent->above < 0 ? Complex{1} / out : out;
  }
  if (base == Complex{0}) return exponent->above == 0 ? 1 : 0;
  const Complex power =
      exponent ? Complex{static_cast<long double>(exponent->above) / static_cast<long double>(exponent->below)}
               : complex_value(f.parts[1], trial);
  return std::exp(power * std::log(base));
}

using Function = Complex (*)(const Complex&);
const std::map<std::string_view, Function>& functions() {
  static const std::map<std::string_view, Function> all = {
      {"exp", [](const Complex& z) { return std::exp(z); }},
      {"sin", [](const Complex& z) { return std::sin(z); }},
      {"cos", [](const Complex& z) { return std::cos(z); }},
      {"tan", [](const Complex& z) { return std::tan(z); }},
      {"csc", [](const Complex& z) { return Complex{1} / std::sin(z); }},
      {"sec", [](const Complex& z) { return Complex{1} / std::cos(z); }},
      {"cot", [](const Complex& z) { return std::cos(z) / std::sin(z); }},
      {"sinh", [](const Complex& z) { return std::sinh(z); }},
      {"cosh", [](const Complex& z) { return std::cosh(z); }},
      {"tanh", [](const Complex& z) { return std::tanh(z); }},
      {"asin", [](const Complex& z) { return std::asin(z); }},
      {"acos", [](const Complex& z) { return std::acos(z); }},
      {"atan", [](const Complex& z) { return std::atan(z); }},
      {"asinh", [](const Complex& z) { return std::asinh(z); }},
      {"acosh", [](const Complex& z) { return std::acosh(z); }},
      {"atanh", [](const Complex& z) { return std::atanh(z); }},
      {"abs", [](const Complex& z) { return Complex{std::abs(z)}; }},
      {"conjugate", [](const Complex& z) { return std::conj(z); }}};
  return all;
}

Complex complex_call(const Formula& f, int trial) {
  if (f.name == "log") {
    const Complex x = complex_value(f.parts[0], trial), base = complex_value(f.parts[1], trial);
    if (x == Complex{0} || base == Complex{0} || base == Complex{1}) throw Undefined();
    return std::log(x) / std::log(base);
  }
  const auto known = functions().find(f.name);
  if (known == functions().end()) throw NotComputed();
  return known->second(complex_value(f.parts[0], trial));
}

// An unknown function: one that tells its arguments apart, and itself from others.
Complex complex_apply(const Formula& f, int trial) {
  Complex out = point_of(f.name, trial);
  for (const Formula& part : f.parts) {
    const Complex z = complex_value(part, trial);
    out = out * (z + point_of(f.name, -trial)) + std::sin(z);
  }
  return out;
}

}  // namespace

uint64_t modular_value(const Formula& f, int trial) {
  switch (f.kind) {
    case FormulaKind::number:
      return mod_number(f.name);
    case FormulaKind::symbol:
      return hash_of(f.name, trial) % kPrime;
    case FormulaKind::sum:
    case FormulaKind::product: {
      uint64_t total = f.kind == FormulaKind::product;
      for (const Formula& part : f.parts) {
        const uint64_t p = modular_value(part, trial);
        total = f.kind == FormulaKind::sum ? (total + p) % kPrime : mod_times(total, p);
      }
      return total;
    }
    case FormulaKind::power: {
      const uint64_t base = modular_value(f.parts[0], trial);
      const int64_t exponent = integer_value(f.parts[1]);
      const uint64_t power = mod_power(base, static_cast<uint64_t>(std::abs(exponent)));
      return exponent < 0 ? mod_inverse(power) : power;
    }
    case FormulaKind::call:
      return mod_call(f);
    case FormulaKind::apply: {
      uint64_t h = hash_of(f.name, trial);
      for (const Formula& part : f.parts) h = mixed(h ^ modular_value(part, trial));
      return h % kPrime;
    }
    default:
      throw NotComputed();
  }
}

Complex complex_value(const Formula& f, int trial) {
  if (f.kind == FormulaKind::power) return complex_power(f, complex_value(f.parts[0], trial), trial);
  if (const auto x = fraction_value(f)) return static_cast<long double>(x->above) / static_cast<long double>(x->below);
  switch (f.kind) {
    case FormulaKind::number:
      return decimal(f.name);
    case FormulaKind::symbol:
      return point_of(f.name, trial);
    case FormulaKind::sum:
    case FormulaKind::product: {
      Complex total{f.kind == FormulaKind::product ? 1.L : 0.L};
      for (const Formula& part : f.parts)
        f.kind == FormulaKind::sum ? total += complex_value(part, trial) : total *= complex_value(part, trial);
      return total;
    }
    case FormulaKind::call:
      return complex_call(f, trial);
    case FormulaKind::apply:
      return complex_apply(f, trial);
    default:
      throw NotComputed();
  }
}

}  // namespace birkhoff::eval
