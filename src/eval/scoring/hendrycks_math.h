// Comparison of answers to problems of MATH by Hendrycks et al. 2021 (arXiv 2103.03874), as the harness has it.
#pragma once
#include <string>

namespace birkhoff::eval {

// An answer in the form that is compared. Throws Raised where the original raises.
std::string hendrycks_strip_string(std::string s);
bool hendrycks_equal(const std::string& a, const std::string& b);

}  // namespace birkhoff::eval
