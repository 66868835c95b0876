#include "io/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "core/error.h"

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
    {TensorType::i16, "I16", 2},         {TensorType::i8, "I8", 1},           {TensorType::u8, "U8", 1},
    {TensorType::boolean, "BOOL", 1}};

[[noreturn]] void fail(const std::string& path, const std::string& what, const std::string& hint = "") {
  throw Error("safetensors", path + ": " + what, hint);
}
}  // namespace

int64_t tensor_type_bytes(TensorType t) { return kTypes[static_cast<size_t>(t)].bytes; }
const char* tensor_type_name(TensorType t) { return kTypes[static_cast<size_t>(t)].name; }

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, std::strerror(errno));
  struct stat st {};
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    fail(path, "is not a regular file");
  }
  map_bytes_ = static_cast<size_t>(st.st_size);
  if (map_bytes_ >= 8) map_ = mmap(nullptr, map_bytes_, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (!map_ || map_ == MAP_FAILED) {
    map_ = nullptr;
    fail(path, "has " + std::to_string(map_bytes_) + " bytes, too few for a header", "the file is truncated; fetch or write it again");
  }
  const auto* base = static_cast<const std::byte*>(map_);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, base, 8);
  if (header_bytes > map_bytes_ - 8) {
    fail(path, "header claims " + std::to_string(header_bytes) + " bytes, file has " + std::to_string(map_bytes_),
         "the file is truncated or not safetensors");
  }
  std::set<std::string> names;  // a parsed object keeps the last of equal keys and says nothing
  std::string repeated;
  const auto note_name = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& key) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key && !names.insert(key.get<std::string>()).second) repeated = key.get<std::string>();
    return true;
  };
  nlohmann::json header = nlohmann::json::parse(reinterpret_cast<const char*>(base) + 8,
                                                reinterpret_cast<const char*>(base) + 8 + header_bytes, note_name, false);
  if (!header.is_object()) fail(path, "header is not a JSON object");
  if (!repeated.empty()) fail(path, repeated + ": stands twice in the header");
  const size_t data_bytes = map_bytes_ - 8 - header_bytes;
  for (auto& [name, v] : header.items()) {
    if (name == "__metadata__") {
      if (v.is_object())
        for (auto& [k, m] : v.items())
          if (m.is_string()) metadata_[k] = m.get<std::string>();
      continue;
    }
    TensorEntry e;
    e.name = name;
    if (!v.is_object() || !v.contains("dtype") || !v["dtype"].is_string()) fail(path, name + ": no dtype");
    const std::string dtype = v["dtype"];
    const auto* row = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeRow& r) { return dtype == r.name; });
    if (row == std::end(kTypes)) fail(path, name + ": unknown dtype " + dtype);
    e.type = row->type;
    if (!v.contains("shape") || !v["shape"].is_array()) fail(path, name + ": no shape");
    size_t count = 1;
    for (auto& d : v["shape"]) {
      if (!d.is_number_unsigned()) fail(path, name + ": shape has a dimension that is no natural number");
      const uint64_t n = d.get<uint64_t>();
      if (n > INT64_MAX || (n != 0 && count > SIZE_MAX / 16 / n)) fail(path, name + ": shape overflows");
      count *= n;
      e.shape.push_back(static_cast<int64_t>(n));
    }
    auto o = v.find("data_offsets");
    if (o == v.end() || !o->is_array() || o->size() != 2 || !(*o)[0].is_number_unsigned() || !(*o)[1].is_number_unsigned())
      fail(path, name + ": no data_offsets");
    const uint64_t begin = (*o)[0], end = (*o)[1];
    if (begin > end || end > data_bytes) {
      fail(path, name + ": data ends at " + std::to_string(end) + ", file has " + std::to_string(data_bytes) + " bytes of data",
           "the file is truncated");
    }
    if (end - begin != count * static_cast<size_t>(row->bytes))
      fail(path, name + ": " + std::to_string(end - begin) + " bytes for " + std::to_string(count) + " elements of " + dtype);
    e.data = base + 8 + header_bytes + begin;
    e.bytes = end - begin;
    tensors_.push_back(std::move(e));
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return std::tie(a.data, a.bytes) < std::tie(b.data, b.bytes); });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    const TensorEntry &a = tensors_[i - 1], &b = tensors_[i];
    if (a.data + a.bytes > b.data) fail(path, a.name + " and " + b.name + ": their data overlap", "the header was edited or damaged");
  }
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_[tensors_[i].name] = i;
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& o) noexcept
    : path_(std::move(o.path_)),
      map_(std::exchange(o.map_, nullptr)),
      map_bytes_(o.map_bytes_),
      tensors_(std::move(o.tensors_)),
      by_name_(std::move(o.by_name_)),
      metadata_(std::move(o.metadata_)) {}

SafetensorsFile::~SafetensorsFile() {
  if (map_) munmap(map_, map_bytes_);
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

void write_safetensors(const std::string& path, std::span<const TensorEntry> tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorEntry& t : tensors) {
    header[t.name] = {{"dtype", tensor_type_name(t.type)}, {"shape", t.shape}, {"data_offsets", {offset, offset + t.bytes}}};
    offset += t.bytes;
  }
  std::string text = header.is_null() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail(path, std::strerror(errno));
  auto put = [&](const void* data, size_t n) {
    const char* p = static_cast<const char*>(data);
    while (n > 0) {
      const ssize_t w = ::write(fd, p, std::min<size_t>(n, size_t{1} << 30));
      if (w < 0 && errno == EINTR) continue;
      if (w <= 0) {
        const std::string why = std::strerror(w < 0 ? errno : ENOSPC);
        ::close(fd);
        fail(path, "write failed: " + why, "free some space or choose another directory");
      }
      p += w;
      n -= static_cast<size_t>(w);
    }
  };
  const uint64_t header_bytes = text.size();
  put(&header_bytes, 8);
  put(text.data(), text.size());
  for (const TensorEntry& t : tensors) put(t.data, t.bytes);
  const bool synced = fsync(fd) == 0;
  if (::close(fd) != 0 || !synced) fail(path, std::string("sync failed: ") + std::strerror(errno));
}

}  // namespace birkhoff::io
