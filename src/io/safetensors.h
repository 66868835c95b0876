// The safetensors format: an 8-byte little-endian header length, a JSON header, raw little-endian tensor data.
// Files are mapped, never copied; everything a header claims is checked before it is believed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace birkhoff::io {

enum class TensorType : uint8_t { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, f8_e8m0, i64, i32, i16, i8, u8, boolean };
int64_t tensor_type_bytes(TensorType t);
const char* tensor_type_name(TensorType t);  // as in the file: "F32", "BF16", ...

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
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;

  const std::vector<TensorEntry>& tensors() const { return tensors_; }  // in file order
  const TensorEntry* find(const std::string& name) const;               // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Writes the tensors in the given order and syncs the file to disk. Throws Error (disk full, no permission); the path may then hold
// a part: write under a temporary name and rename.
void write_safetensors(const std::string& path, std::span<const TensorEntry> tensors, const std::map<std::string, std::string>& metadata = {});

}  // namespace birkhoff::io
