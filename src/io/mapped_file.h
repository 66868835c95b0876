// A file's bytes, mapped read-only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace birkhoff::io {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error: missing, unreadable, not a regular file
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace birkhoff::io
