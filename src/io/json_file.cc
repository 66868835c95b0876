#include "io/json_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "io/atomic_file.h"

namespace birkhoff::io {
namespace {
constexpr uintmax_t kMaxBytes = uintmax_t{64} << 20;
constexpr int kMaxDepth = 64;
}  // namespace

nlohmann::json read_json(const std::string& path) {
  std::error_code ec;
  const uintmax_t bytes = std::filesystem::file_size(path, ec);
  if (ec) throw Error("file", path + ": " + ec.message());
  if (bytes > kMaxBytes) throw Error("file", path + ": " + std::to_string(bytes) + " bytes, at most " + std::to_string(kMaxBytes) + " are read");
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<size_t>(bytes), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(bytes)) && bytes > 0) throw Error("file", path + ": " + std::strerror(errno));
  const auto too_deep = [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) throw Error("json", "nested deeper than " + std::to_string(kMaxDepth));
    return true;
  };
  try {
    return nlohmann::json::parse(text, too_deep);
  } catch (const nlohmann::json::parse_error& e) {
    const size_t at = std::min(e.byte ? e.byte - 1 : 0, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    const size_t start = text.rfind('\n', at ? at - 1 : 0);
    const size_t column = at - (start == std::string::npos || start >= at ? 0 : start + 1) + 1;
    throw Error("json", path + ":" + std::to_string(line) + ":" + std::to_string(column) + ": not JSON", "the file is damaged or was edited");
  } catch (const nlohmann::json::out_of_range&) {  // a number that no double holds
    throw Error("json", path + ": a number is out of range", "the file is damaged or was edited");
  }
}

void write_json(const std::string& path, const nlohmann::json& value) {
  write_file_atomic(path, value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace birkhoff::io
