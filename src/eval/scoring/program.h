// Programs that answers become, and the share that passes their tests.
#pragma once
#include <cstdint>
#include <string>

#include "text/jinja/value.h"

namespace birkhoff::eval {

// "prompt" of the references {"prompt", "test"}. Throws Error.
std::string program_prompt(const text::chat::Value& references);

// Unbiased estimate of the chance that one of k answers passes, of n answers of which `passed` did: 1 - C(n - passed,
// k) / C(n, k). Needs k <= n. Chen et al. 2021, arXiv 2107.03374.
double pass_at_k(int64_t n, int64_t passed, int64_t k);

}  // namespace birkhoff::eval
