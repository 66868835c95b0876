// Values of formulas at a point: what every symbol stands for follows from its name and the number of the trial.
#pragma once
#include <complex>
#include <cstdint>
#include <optional>

#include "eval/scoring/latex_formula.h"

namespace birkhoff::eval {

struct NotComputed : std::exception {};  // not here, though it may have a value
struct Undefined : std::exception {};    // a division by zero

inline constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

// Of formulas whose operations are + - * /, powers with integer exponents, factorials and the like: modulo kPrime.
// Throws NotComputed, Undefined.
uint64_t modular_value(const Formula& f, int trial);
// Of all others. Throws the same.
using Complex = std::complex<long double>;
Complex complex_value(const Formula& f, int trial);

// A formula without symbols that is a fraction of 63-bit integers.
struct Fraction {
  int64_t above = 0, below = 1;  // in lowest terms, below > 0
};
std::optional<Fraction> fraction_value(const Formula& f);

}  // namespace birkhoff::eval
