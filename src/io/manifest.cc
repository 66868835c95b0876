#include "io/manifest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "io/json_file.h"

namespace birkhoff::io {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kP1 = 0x9E3779B185EBCA87ull, kP2 = 0xC2B2AE3D27D4EB4Full, kP3 = 0x165667B19E3779F9ull, kP4 = 0x85EBCA77C2B2AE63ull,
                   kP5 = 0x27D4EB2F165667C5ull;
constexpr const char* kManifest = "manifest.json";

uint64_t rotate(uint64_t x, int r) { return (x << r) | (x >> (64 - r)); }
uint64_t round(uint64_t acc, uint64_t lane) { return rotate(acc + lane * kP2, 31) * kP1; }
uint64_t merge(uint64_t h, uint64_t acc) { return (h ^ round(0, acc)) * kP1 + kP4; }
template <class T>
T read(const unsigned char* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

std::string hex(uint64_t v) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(v));
  return text;
}

}  // namespace

uint64_t xxh64(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  const unsigned char* end = p + bytes;
  uint64_t h;
  if (bytes >= 32) {
    uint64_t a = kP1 + kP2, b = kP2, c = 0, d = 0 - kP1;
    for (; end - p >= 32; p += 32) {
      a = round(a, read<uint64_t>(p));
      b = round(b, read<uint64_t>(p + 8));
      c = round(c, read<uint64_t>(p + 16));
      d = round(d, read<uint64_t>(p + 24));
    }
    h = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    for (const uint64_t acc : {a, b, c, d}) h = merge(h, acc);
  } else {
    h = kP5;
  }
  h += bytes;
  for (; end - p >= 8; p += 8) h = rotate(h ^ round(0, read<uint64_t>(p)), 27) * kP1 + kP4;
  if (end - p >= 4) {
    h = rotate(h ^ read<uint32_t>(p) * kP1, 23) * kP2 + kP3;
    p += 4;
  }
  for (; p < end; ++p) h = rotate(h ^ *p * kP5, 11) * kP1;
  h = (h ^ (h >> 33)) * kP2;
  h = (h ^ (h >> 29)) * kP3;
  return h ^ (h >> 32);
}

uint64_t file_checksum(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat st {};
  if (fd < 0 || fstat(fd, &st) != 0) {
    const std::string why = std::strerror(errno);
    if (fd >= 0) ::close(fd);
    throw Error("file", path + ": " + why);
  }
  const auto bytes = static_cast<size_t>(st.st_size);
  if (bytes == 0) {
    ::close(fd);
    return xxh64(nullptr, 0);
  }
  void* map = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (map == MAP_FAILED) throw Error("file", path + ": " + std::strerror(errno));
  madvise(map, bytes, MADV_SEQUENTIAL);
  const uint64_t h = xxh64(map, bytes);
  munmap(map, bytes);
  return h;
}

void write_manifest(const std::string& directory) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  std::vector<std::string> names;
  for (const auto& e : fs::recursive_directory_iterator(directory))
    if (e.is_regular_file()) names.push_back(fs::relative(e.path(), directory).string());
  std::sort(names.begin(), names.end());
  for (const auto& n : names) {
    if (n == kManifest) continue;
    files.push_back({{"file", n}, {"bytes", fs::file_size(directory + "/" + n)}, {"xxh64", hex(file_checksum(directory + "/" + n))}});
  }
  write_json(directory + "/" + kManifest, {{"files", files}});
}

std::vector<std::string> verify_manifest(const std::string& directory) {
  std::vector<std::string> problems;
  const std::string path = directory + "/" + kManifest;
  if (!fs::exists(path)) return {"no " + std::string(kManifest)};
  try {
    const nlohmann::json j = read_json(path);
    for (const auto& f : j.at("files")) {
      const std::string name = f.at("file"), file = directory + "/" + name;
      if (!fs::exists(file)) {
        problems.push_back(name + " is missing");
      } else if (fs::file_size(file) != f.at("bytes").get<uintmax_t>()) {
        problems.push_back(name + " has " + std::to_string(fs::file_size(file)) + " bytes, the manifest says " + f.at("bytes").dump());
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
