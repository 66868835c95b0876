#pragma once
#include <string>

#include "core/error.h"

namespace birkhoff::data {

// Throws Error("data", what, hint).
[[noreturn]] inline void data_error(const std::string& what, const std::string& hint = "") {
  throw Error("data", what, hint);
}

}  // namespace birkhoff::data
