// The safetensors format: an 8-byte little-endian header length, a JSON header, raw little-endian tensor data.
// Files are mapped, never copied; everything a header claims is checked before it is believed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/mapped_file.h"

namespace birkhoff::io {

enum class TensorType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean
};
int64_t tensor_type_bytes(TensorType t);
const char* tensor_type_name(TensorType t);                        // as in the file: "F32", "BF16", ...
bool find_tensor_type(const std::string& name, TensorType& type);  // false: unknown

struct TensorEntry {
  std::string name;
  TensorType type = TensorType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // inside the mapping (reading) or the caller's memory (writing)
  size_t bytes = 0;
  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data);
  }
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);  // throws Error naming the file and what is wrong with it

  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // in file order
  const TensorEntry* find(const std::string& name) const;               // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  size_t bytes() const { return file_.bytes().size(); }  // of the file

 private:
  std::string path_;
  MappedFile file_;
  std::vector<TensorEntry> tensors_;
  std::vector<uint32_t> by_name_;  // numbers of tensors, sorted by their names
  std::map<std::string, std::string> metadata_;
};

// A file written as a stream: the header first, from what is known of the tensors (their `data` is not read), then
// their bytes in that order. Throws Error (disk full, no permission); the path then holds a part: write under a
// temporary name and rename.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::span<const TensorEntry> tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  void append(const void* data, size_t bytes);
  void finish();  // syncs to disk; all bytes the header promises must have been appended

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t left_ = 0;  // bytes of data still to come
};

// Writes the tensors in the given order as write_file_atomic does. Throws Error (disk full, no permission).
void write_safetensors(const std::string& path, std::span<const TensorEntry> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace birkhoff::io
