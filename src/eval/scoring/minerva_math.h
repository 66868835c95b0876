// Answers to problems of MATH as Lewkowycz et al. 2022 (arXiv 2206.14858, appendix D) find and normalise them, with the
// repairs of the harness.
#pragma once
#include <string>

namespace birkhoff::eval {

// What stands in "Final Answer: The final answer is ... I hope it is correct."; "[invalidanswer]" without it.
std::string minerva_answer(const std::string& text);
std::string minerva_normalize(std::string answer);

}  // namespace birkhoff::eval
