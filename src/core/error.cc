#include "core/error.h"

#include <algorithm>
#include <utility>

namespace birkhoff {
namespace {
constexpr size_t kLongestValue = 100, kLongestText = 4000;

// At most `most` bytes and no part of a character; "..." says that there was more.
void append_cut(std::string& out, std::string_view text, size_t most) {
  if (text.size() <= most) {
    out += text;
    return;
  }
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  out.append(text.substr(0, most)).append("...");
}
}  // namespace

std::string shortened(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = std::min(text.find('"'), text.size());
    out += text.substr(0, open);
    if (open == text.size()) break;
    const size_t close = std::min(text.find('"', open + 1), text.size());
    out += '"';
    append_cut(out, text.substr(open + 1, close - open - 1), kLongestValue);
    if (close < text.size()) out += '"';
    text.remove_prefix(std::min(close + 1, text.size()));
  }
  std::string whole;
  append_cut(whole, out, kLongestText);
  return whole;
}

Error::Error(std::string where, std::string what, std::string hint, ExitCode code)
    : std::runtime_error("[" + where + "] " + shortened(what)),
      where_(std::move(where)),
      hint_(shortened(hint)),
      code_(code) {}

namespace detail {
void contract_failed(const char* file, int line, const std::string& text) {
  throw ContractViolation(std::string(file) + ":" + std::to_string(line) + ": contract broken: " + text);
}
}  // namespace detail

}  // namespace birkhoff
