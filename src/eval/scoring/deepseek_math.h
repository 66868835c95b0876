// Extraction and comparison of answers to MATH as in the evaluation of DeepSeekMath (Shao et al. 2024, arXiv
// 2402.03300).
#pragma once
#include <string>

#include "text/jinja/value.h"

namespace birkhoff::eval {

// An answer in the form that is compared; not that of hendrycks_strip_string.
std::string deepseek_strip_string(const std::string& s);
// The answers in a text, one a line. references {"problem", ...}: a problem that asks for several, "separated by
// commas", has them split at commas.
std::string deepseek_math_answers(const std::string& text, const text::chat::Value& references);
bool deepseek_math_equal(const std::string& prediction, const std::string& reference);

}  // namespace birkhoff::eval
