// The GGUF format (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian: a header, metadata as keys
// and typed values, a list of tensors, their data. Files are mapped, never copied; everything a header claims is
// checked before it is believed, and nothing is allocated by a length that the file has no room for.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"

namespace birkhoff::io {

// Elements of a row lie in blocks of `elements` that take `bytes`.
struct GgufTensorType {
  uint32_t id;
  const char* name;  // "Q4_K"
  int64_t elements, bytes;
};
// nullptr: unknown, removed from the format, or not for files.
const GgufTensorType* find_gguf_tensor_type(uint32_t id);
std::span<const GgufTensorType> gguf_tensor_types();

struct GgufTensor {
  std::string_view name;                    // in the mapping
  std::array<int64_t, 4> dims{1, 1, 1, 1};  // innermost first: dims[0] is the length of a row
  int dim_count = 0;
  const GgufTensorType* type = nullptr;
  const std::byte* data = nullptr;  // in the mapping, at no particular alignment that a file could not undercut
  size_t bytes = 0;
  int64_t row_bytes() const { return dims[0] / type->elements * type->bytes; }
  std::vector<int64_t> shape() const;  // outermost first, as every other format lists it
};

enum class GgufValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
const char* gguf_value_type_name(GgufValueType t);

// A value of the metadata as it lies in the file.
struct GgufValue {
  std::string_view key;
  GgufValueType type = GgufValueType::u8;
  GgufValueType element = GgufValueType::u8;  // of an array
  uint64_t count = 1;                         // of an array: its elements
  std::span<const std::byte> bytes;           // without the type; of an array its elements
};

// What a header holds (gguf_header.cc).
struct GgufHeader {
  uint32_t version = 0;
  std::vector<GgufValue> values;    // sorted by key
  std::vector<GgufTensor> tensors;  // in the order of their data
  std::vector<uint32_t> by_name;    // numbers of tensors, sorted by name
};
// Throws Error{"gguf", "<path>: ..."} naming place and value: another magic or version, counts and lengths the file has
// no room for, more than 65,536 tensors or keys, arrays nested deeper than 8, names that stand twice, dimensions that
// overflow, unknown types, rows of no whole number of blocks, data at no multiple of the alignment, outside the file or
// shared.
GgufHeader parse_gguf_header(const std::string& path, std::span<const std::byte> file);

class GgufFile {
 public:
  explicit GgufFile(const std::string& path);  // throws Error naming the file, the place and the value
  const std::string& path() const { return path_; }
  size_t bytes() const { return file_.bytes().size(); }
  uint32_t version() const { return header_.version; }
  std::span<const GgufTensor> tensors() const { return header_.tensors; }
  const GgufTensor* find(std::string_view name) const;  // nullptr when absent
  const GgufValue* value(std::string_view key) const;   // nullptr when absent
  std::span<const GgufValue> values() const { return header_.values; }

  // Typed access: nothing when the key is absent, Error naming key and type when it holds something else.
  std::optional<uint64_t> natural(std::string_view key) const;  // of any whole type, not negative
  std::optional<double> number(std::string_view key) const;     // of any whole or floating type; of f32 the shortest
                                                                // decimal that is stored so
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  // Arrays. A single value is an array of one for naturals, which files write either way.
  std::optional<std::vector<uint64_t>> naturals(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;

  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const;

 private:
  const GgufValue* array_of(std::string_view key) const;
  [[noreturn]] void wrong_type(const GgufValue& v, const char* expected) const;
  std::string path_;
  MappedFile file_;
  GgufHeader header_;
};

// One file, or the shards NAME-00001-of-0000N.gguf of a split one, found from the first, which holds the metadata.
class GgufModel {
 public:
  // Throws Error: a damaged or missing shard, shards that do not belong together, a path that is not the first one.
  explicit GgufModel(const std::string& path);
  const GgufFile& metadata() const { return *files_.front(); }
  const GgufTensor* find(std::string_view name) const;  // nullptr when absent
  std::span<const GgufTensor* const> tensors() const { return tensors_; }
  size_t bytes() const { return bytes_; }  // of all files
  std::vector<std::string> paths() const;

 private:
  void open_shards(uint64_t count);
  std::vector<std::unique_ptr<GgufFile>> files_;
  std::vector<const GgufTensor*> tensors_;  // sorted by name
  size_t bytes_ = 0;
};

// Whether a file begins as GGUF does, or is called so. False for anything that is not a regular file.
bool is_gguf(const std::string& path);

}  // namespace birkhoff::io
