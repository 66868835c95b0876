#include "core/error.h"

#include <utility>

namespace birkhoff {

Error::Error(std::string where, std::string what, std::string hint, ExitCode code)
    : std::runtime_error("[" + where + "] " + what), where_(std::move(where)), hint_(std::move(hint)), code_(code) {}

namespace detail {
void contract_failed(const char* file, int line, const std::string& text) {
  throw ContractViolation(std::string(file) + ":" + std::to_string(line) + ": contract broken: " + text);
}
}  // namespace detail

}  // namespace birkhoff
