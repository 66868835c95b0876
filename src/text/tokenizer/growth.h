// A tokenizer.json may hold steps that each double a text. What the steps of one text may write together is bounded, as
// templates are (text/jinja/jinja.h); those of real files stay below 12 times (NFKD of an Arabic ligature).
#pragma once
#include <cstddef>
#include <string>

#include "core/error.h"

namespace birkhoff::text {

inline constexpr size_t kGrowth = 32, kGrowthFloor = size_t{1} << 20, kMaxSteps = 256;

inline size_t output_limit(size_t input_bytes, size_t floor = kGrowthFloor) {
  return input_bytes > (SIZE_MAX - floor) / kGrowth ? SIZE_MAX : kGrowth * input_bytes + floor;
}

// `kind`: "normalizer" or "decoder". Throws Error.
inline void require_output(const char* kind, size_t bytes, size_t limit) {
  if (bytes > limit)
    throw Error("tokenizer",
                std::string(kind) + ": its steps make " + std::to_string(bytes) + " bytes of a text that may become " +
                    std::to_string(limit),
                "the steps of tokenizer.json multiply text; no released tokenizer does");
}
inline void require_steps(const char* kind, size_t steps) {
  if (steps > kMaxSteps)
    throw Error("tokenizer", std::string(kind) + ": more than " + std::to_string(kMaxSteps) + " steps",
                "released tokenizers have fewer than ten");
}

// The size of a text whose `matches` give way to `content` each, at most SIZE_MAX.
inline size_t replaced_bytes(size_t text, size_t matches, size_t content) {
  return content && matches > (SIZE_MAX - text) / content ? SIZE_MAX : text + matches * content;
}

}  // namespace birkhoff::text
