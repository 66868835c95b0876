// A file's bytes, mapped read-only.
#pragma once
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace birkhoff::io {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error: missing, unreadable, not a regular file
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  struct Mapping;  // in the list of all mappings
  static Mapping* enter(const std::string& path, const void* data, size_t size, const struct stat& about);
  friend const char* mapped_file_at(const void* address, bool& shorter);
  friend std::vector<std::string> mapped_files();
  friend std::vector<std::string> changed_mapped_files();

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  Mapping* mapping_ = nullptr;
};

// A mapped file that loses its end while it is read is a SIGBUS at whoever reads next. The path of the file that holds
// the address, or nullptr; shorter: it has lost bytes (else the disk failed). For a handler of that signal: takes no
// lock, allocates nothing.
const char* mapped_file_at(const void* address, bool& shorter);

// Paths of what is mapped now.
std::vector<std::string> mapped_files();

// Files that were written to while this process had them mapped, now or earlier: what was computed from them may be of
// a mixture. Not those that were replaced by another file of the same name, which does no harm.
std::vector<std::string> changed_mapped_files();

}  // namespace birkhoff::io
