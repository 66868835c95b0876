// JSON files with errors that say where.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace birkhoff::io {

// Throws Error: missing, unreadable, larger than 64 MiB, nested deeper than 64, or not JSON (with line and column).
nlohmann::json read_json(const std::string& path);
// Whole file, indented, synced. Throws Error.
void write_json(const std::string& path, const nlohmann::json& value);

}  // namespace birkhoff::io
