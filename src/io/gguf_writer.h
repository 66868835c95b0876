// Writing GGUF files, version 3, little-endian.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/atomic_file.h"
#include "io/gguf.h"

namespace birkhoff::io {

// Keys and values, in the order they are given. A key twice is a broken contract of the caller.
class GgufMetadata {
 public:
  void put(const std::string& key, bool v);
  void put(const std::string& key, uint32_t v);
  void put(const std::string& key, float v);
  void put(const std::string& key, std::string_view v);
  void put(const std::string& key, const char* v) { put(key, std::string_view(v)); }
  void put(const std::string& key, std::span<const int32_t> v);
  void put(const std::string& key, std::span<const float> v);
  void put(const std::string& key, std::span<const std::string> v);
  void put(const GgufValue& v);  // of another file, as it lies there
  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(const std::string& key, GgufValueType type);
  void begin_array(const std::string& key, GgufValueType element, size_t count);
  uint64_t count_ = 0;
  std::string bytes_;
};

// A tensor to be written: its shape outermost first, rows of whole blocks.
struct GgufTensorPlan {
  std::string name;
  std::vector<int64_t> shape;
  const GgufTensorType* type = nullptr;
  size_t bytes() const;
};

// A file that appears under its name when it is complete. The data of all tensors follow in the order of the list, in
// as many pieces as the caller likes.
class GgufWriter {
 public:
  // Throws Error: a name of more than 63 bytes, which other readers refuse, or a file that cannot be written.
  GgufWriter(const std::string& path, const GgufMetadata& metadata, std::span<const GgufTensorPlan> tensors);
  void append(const void* data, size_t bytes);  // throws Error when the disk is full
  void finish();                                // after the last byte: syncs, renames

 private:
  void close_tensor();
  StagedFile file_;
  std::vector<size_t> sizes_;
  size_t tensor_ = 0, left_ = 0;
};

}  // namespace birkhoff::io
