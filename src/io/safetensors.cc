#include "io/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/safetensors_header.h"

namespace birkhoff::io {
namespace {
struct TypeRow {
  TensorType type;
  const char* name;
  int bytes;
};
constexpr TypeRow kTypes[] = {
    {TensorType::f64, "F64", 8},         {TensorType::f32, "F32", 4},         {TensorType::f16, "F16", 2},
    {TensorType::bf16, "BF16", 2},       {TensorType::f8_e4m3, "F8_E4M3", 1}, {TensorType::f8_e5m2, "F8_E5M2", 1},
    {TensorType::f8_e8m0, "F8_E8M0", 1}, {TensorType::i64, "I64", 8},         {TensorType::i32, "I32", 4},
    {TensorType::i16, "I16", 2},         {TensorType::i8, "I8", 1},           {TensorType::u64, "U64", 8},
    {TensorType::u32, "U32", 4},         {TensorType::u16, "U16", 2},         {TensorType::u8, "U8", 1},
    {TensorType::boolean, "BOOL", 1}};
}  // namespace

int64_t tensor_type_bytes(TensorType t) { return kTypes[static_cast<size_t>(t)].bytes; }
const char* tensor_type_name(TensorType t) { return kTypes[static_cast<size_t>(t)].name; }
bool find_tensor_type(const std::string& name, TensorType& type) {
  for (const TypeRow& row : kTypes) {
    if (name != row.name) continue;
    type = row.type;
    return true;
  }
  return false;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path), file_(path) {
  SafetensorsHeader h = parse_safetensors_header(path, std::as_bytes(file_.bytes()));
  tensors_ = std::move(h.tensors);
  metadata_ = std::move(h.metadata);
  by_name_ = std::move(h.by_name);
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t i, const std::string& n) { return tensors_[i].name < n; });
  return it == by_name_.end() || tensors_[*it].name != name ? nullptr : &tensors_[*it];
}

namespace {

// What stands before the tensors' bytes: its length, and the header.
std::string header_of(std::span<const TensorEntry> tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorEntry& t : tensors) {
    header[t.name] = {
        {"dtype", tensor_type_name(t.type)}, {"shape", t.shape}, {"data_offsets", {offset, offset + t.bytes}}};
    offset += t.bytes;
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t bytes = text.size();
  return std::string(reinterpret_cast<const char*>(&bytes), sizeof bytes) + text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::span<const TensorEntry> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path) {
  const std::string header = header_of(tensors, metadata);
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) safetensors_error(path, std::strerror(errno));
  left_ = std::accumulate(tensors.begin(), tensors.end(), uint64_t{header.size()},
                          [](uint64_t bytes, const TensorEntry& t) { return bytes + t.bytes; });
  append(header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void SafetensorsWriter::append(const void* data, size_t bytes) {
  BK_CHECK_LE(bytes, left_);
  left_ -= bytes;
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t w = ::write(fd_, p, std::min<size_t>(bytes, size_t{1} << 30));
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0)
      safetensors_error(path_, std::string("write failed: ") + std::strerror(w < 0 ? errno : ENOSPC),
                        "free some space or choose another directory");
    p += w;
    bytes -= static_cast<size_t>(w);
  }
}

void SafetensorsWriter::finish() {
  BK_CHECK_EQ(left_, uint64_t{0});
  const bool synced = fsync(fd_) == 0;
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0 || !synced) safetensors_error(path_, std::string("sync failed: ") + std::strerror(errno));
}

void write_safetensors(const std::string& path, std::span<const TensorEntry> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = header_of(tensors, metadata);
  std::vector<std::string_view> parts{header};
  for (const TensorEntry& t : tensors) parts.emplace_back(reinterpret_cast<const char*>(t.data), t.bytes);
  write_file_atomic(path, parts);
}

}  // namespace birkhoff::io
