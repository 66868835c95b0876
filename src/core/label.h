// Labels of tokens that a loss leaves out.
#pragma once
#include <cstdint>

namespace birkhoff {

inline constexpr int32_t kIgnoreLabel = -100;

}  // namespace birkhoff
