// Answers in \boxed{} of solutions to mathematical problems.
#pragma once
#include <string>

namespace birkhoff::eval {

// The last boxed answer of a solution, as the harness finds it. Throws Error when there is none.
std::string last_boxed(const std::string& solution);

}  // namespace birkhoff::eval
