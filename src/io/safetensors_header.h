// The JSON header of a safetensors file, read as a stream: nothing it claims is believed or allocated before it is
// checked.
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/safetensors.h"

namespace birkhoff::io {

[[noreturn]] inline void safetensors_error(const std::string& path, const std::string& what,
                                           const std::string& hint = "") {
  throw Error("safetensors", path + ": " + what, hint);
}

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // in the order of their data
  std::vector<uint32_t> by_name;     // their numbers, sorted by name
  std::map<std::string, std::string> metadata;
};

// `file` is the whole file. Entries point into it. Throws Error{"safetensors", "<path>: ..."}: header length beyond the
// file or 24 MiB, no JSON, more than 200,000 tensors, names that stand twice, unknown types, shapes that overflow, data
// outside the file, of the wrong size or shared.
SafetensorsHeader parse_safetensors_header(const std::string& path, std::span<const std::byte> file);

}  // namespace birkhoff::io
