#include "io/manifest.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::io {
namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "manifest.json";

std::string hex(uint64_t v) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(v));
  return text;
}

}  // namespace

uint64_t checksum(std::string_view bytes, uint64_t seed) { return XXH64(bytes.data(), bytes.size(), seed); }

uint64_t file_checksum(const std::string& path) {
  struct stat about {};
  const Descriptor file = open_file(path, about);
  const std::unique_ptr<XXH64_state_t, XXH_errorcode (*)(XXH64_state_t*)> state(XXH64_createState(), XXH64_freeState);
  XXH64_reset(state.get(), 0);
  std::vector<char> buffer(
      size_t{1} << 20);  // read, not mapped: a mapped checkpoint would count as this process's memory
  while (const ssize_t n = ::read(file.get(), buffer.data(), buffer.size())) {
    if (n < 0 && errno != EINTR) file_error(path, "", errno);
    if (n > 0) XXH64_update(state.get(), buffer.data(), static_cast<size_t>(n));
  }
  return XXH64_digest(state.get());
}

void write_manifest(const std::string& directory) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  std::vector<std::string> names;
  for (const auto& e : fs::recursive_directory_iterator(directory))
    if (e.is_regular_file()) names.push_back(fs::relative(e.path(), directory).string());
  std::sort(names.begin(), names.end());
  for (const auto& n : names) {
    if (n == kManifest) continue;
    files.push_back({{"file", n},
                     {"bytes", fs::file_size(directory + "/" + n)},
                     {"xxh64", hex(file_checksum(directory + "/" + n))}});
  }
  write_json(directory + "/" + kManifest, {{"files", files}});
}

std::vector<std::string> verify_manifest(const std::string& directory) {
  std::vector<std::string> problems;
  const std::string path = directory + "/" + kManifest;
  if (!exists(path)) return {"no " + std::string(kManifest)};
  try {
    const nlohmann::json j = read_json(path);
    for (const auto& f : j.at("files")) {
      const std::string name = f.at("file"), file = directory + "/" + name;
      if (!is_file(file)) {
        problems.push_back(name + " is missing");
      } else if (fs::file_size(file) != f.at("bytes").get<uintmax_t>()) {
        problems.push_back(name + " has " + std::to_string(fs::file_size(file)) + " bytes, the manifest says " +
                           f.at("bytes").dump());
      } else if (hex(file_checksum(file)) != f.at("xxh64").get<std::string>()) {
        problems.push_back(name + " has another checksum than the manifest");
      }
    }
  } catch (const std::exception& e) {
    problems.push_back(std::string(kManifest) + ": " + e.what());
  }
  return problems;
}

}  // namespace birkhoff::io
