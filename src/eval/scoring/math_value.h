// Whether two formulas in LaTeX are equal for every value of their variables, decided without an algebra system:
// rational functions exactly (up to chance of 2^-50, in the integers modulo 2^61 - 1), the rest by their values at
// points.
#pragma once
#include <cstdint>
#include <string>

namespace birkhoff::eval {

// unknown: one of them is beyond what is computed here (integrals, limits, infinity, very large ones).
enum class SameValue : uint8_t { no, yes, unknown };
// no where one of them is no formula, or an equation. Deterministic.
SameValue same_value(const std::string& a, const std::string& b);

// Whether both are formulas without variables whose values are real and as close as Python's math.isclose wants with
// this absolute tolerance.
bool close_values(const std::string& a, const std::string& b, double tolerance);

}  // namespace birkhoff::eval
