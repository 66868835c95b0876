// Files that a user names. What is there is looked at before it is opened, no open waits for another program, and all
// that the system refuses is Error{"file", "PATH: reason"}, never another exception.
#pragma once
#include <sys/stat.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace birkhoff::io {

// Some editors put it before UTF-8; readers of JSON and JSON lines pass over it.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
inline std::string_view without_mark(std::string_view text) {
  return text.substr(text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
}

// Throws Error{"file", "path: what: reason of the errno"} with a hint that fits; what may be "".
[[noreturn]] void file_error(const std::string& path, const std::string& what, int error);

enum class PathKind { absent, file, directory, other };  // other: a device, a pipe, a socket

// Links are followed; one that leads nowhere is absent. Throws Error when it cannot be told: a folder that may not be
// searched, a cycle of links, a name that is too long.
PathKind path_kind(const std::string& path);
inline bool exists(const std::string& path) { return path_kind(path) != PathKind::absent; }
inline bool is_file(const std::string& path) { return path_kind(path) == PathKind::file; }
inline bool is_directory(const std::string& path) { return path_kind(path) == PathKind::directory; }

// Whether the name is taken, be it by a link that leads nowhere. Throws Error as path_kind.
bool is_taken(const std::string& path);
size_t file_size(const std::string& path);  // bytes of a regular file; throws Error

// True when both are there and are one file, whatever they are called.
bool same_file(const std::string& a, const std::string& b);
// Throws Error (exit code 2) when what is to be written is one of the files that are read; a folder among those stands
// for itself and the files in it.
void check_not_an_input(const std::string& out, const std::vector<std::string>& inputs);

// Names in a folder, sorted. Throws Error.
std::vector<std::string> list_directory(const std::string& path);
void create_directories(const std::string& path);  // throws Error

// An open descriptor, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Opens a regular file to read; anything else is refused. about: what fstat says of it. Throws Error.
Descriptor open_file(const std::string& path, struct stat& about);

// Writes all of it; false with the reason in errno.
bool write_all(int fd, std::string_view content);

// The bytes of a regular file. Throws Error; also when there are more than max_bytes.
std::string read_file(const std::string& path, size_t max_bytes);

// The same of a file, a pipe or a device: what is read once, from its beginning to its end, such as a prompt. A pipe
// that nothing writes to is refused after ten seconds.
std::string read_stream(const std::string& path, size_t max_bytes);

// Standard input from where it stands to its end, whatever it is. Throws Error; also when there are more than
// max_bytes.
std::string read_standard_input(size_t max_bytes);

}  // namespace birkhoff::io
