// manifest.json: every file of a directory with its size and checksum, so that truncated and edited files are noticed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::io {

// XXH64 of the content, seed 0. Throws Error.
uint64_t file_checksum(const std::string& path);
uint64_t checksum(std::string_view bytes, uint64_t seed = 0);  // of the same kind

// Lists all files below `directory` except the manifest itself; written atomically, last.
void write_manifest(const std::string& directory);
// What does not match, a sentence each; empty when all is well. A missing manifest is a problem.
std::vector<std::string> verify_manifest(const std::string& directory);

}  // namespace birkhoff::io
