#include "io/user_files.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace birkhoff::io {
namespace {

namespace fs = std::filesystem;
constexpr int kPatienceMs = 10'000;
constexpr const char* kHint = "check the path and its permissions";

std::string hint_for(int error) {
  switch (error) {
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
      return "free some space or choose another directory";
    case EMFILE:
    case ENFILE:
      return "allow more open files (ulimit -n)";
    default:
      return kHint;
  }
}

// Opens without waiting: a pipe without a writer would hold an ordinary open for ever.
Descriptor open_now(const std::string& path, struct stat& about) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (fd.get() < 0 || fstat(fd.get(), &about) != 0) file_error(path, "", errno);
  if (S_ISDIR(about.st_mode)) throw Error("file", path + ": is a directory", "a file was expected");
  return fd;
}

[[noreturn]] void too_large(const std::string& path, size_t max_bytes) {
  throw Error("file", path + ": more than " + std::to_string(max_bytes) + " bytes, which is all that is read of it");
}

// Reads to the end. The end before the first byte of a pipe may only mean that its writer has not come yet.
std::string read_all(int fd, const std::string& path, size_t max_bytes, bool pipe) {
  std::string text;
  std::vector<char> block(size_t{1} << 16);
  pollfd more{fd, POLLIN, 0};
  for (;;) {
    const ssize_t n = ::read(fd, block.data(), block.size());
    if (n > 0) {
      text.append(block.data(), static_cast<size_t>(n));
      if (text.size() > max_bytes) too_large(path, max_bytes);
    } else if (n == 0) {
      if (!pipe || !text.empty()) return text;
      if (::poll(&more, 1, kPatienceMs) == 0)
        throw Error("file", path + ": is a pipe that nothing is written to", "start its writer, or give a file");
    } else if (errno == EAGAIN) {
      ::poll(&more, 1, -1);
    } else if (errno != EINTR) {
      file_error(path, "", errno);
    }
    if (n >= 0 || errno == EAGAIN) pipe = false;
  }
}

}  // namespace

void file_error(const std::string& path, const std::string& what, int error) {
  throw Error("file", path + ": " + (what.empty() ? "" : what + ": ") + std::strerror(error), hint_for(error));
}

PathKind path_kind(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return PathKind::absent;
    file_error(path, "", errno);
  }
  return S_ISREG(st.st_mode) ? PathKind::file : S_ISDIR(st.st_mode) ? PathKind::directory : PathKind::other;
}

bool is_taken(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) file_error(path, "", errno);
  return false;
}

size_t file_size(const std::string& path) {
  struct stat about {};
  open_file(path, about);
  return static_cast<size_t>(about.st_size);
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat x {
  }, y{};
  return ::stat(a.c_str(), &x) == 0 && ::stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void check_not_an_input(const std::string& out, const std::vector<std::string>& inputs) {
  const PathKind kind = path_kind(out);
  if (kind == PathKind::absent || kind == PathKind::other) return;
  const auto holds_it = [&](const std::string& folder) {
    if (kind != PathKind::file || !is_directory(folder)) return false;
    const std::vector<std::string> names = list_directory(folder);
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return same_file(out, folder + "/" + name); });
  };
  for (const std::string& input : inputs)
    if (same_file(out, input) || holds_it(input))
      throw Error("file", out + ": is read (" + input + ") and would be overwritten", "write to another file",
                  ExitCode::usage);
}

std::vector<std::string> list_directory(const std::string& path) {
  std::error_code ec;
  std::vector<std::string> names;
  fs::directory_iterator entry(path, ec);
  for (; !ec && entry != fs::directory_iterator(); entry.increment(ec))
    names.push_back(entry->path().filename().string());
  if (ec) file_error(path, "", ec.value());
  std::sort(names.begin(), names.end());
  return names;
}

void create_directories(const std::string& path) {
  std::error_code ec;
  fs::create_directories(path, ec);
  if (ec) file_error(path, "cannot be created", ec.value());
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Descriptor open_file(const std::string& path, struct stat& about) {
  Descriptor fd = open_now(path, about);
  if (!S_ISREG(about.st_mode))
    throw Error("file", path + ": is not a regular file", "save its content in a file and give that");
  return fd;
}

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = ENOSPC;
    if (n <= 0) return false;
    content.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

std::string read_file(const std::string& path, size_t max_bytes) {
  struct stat about {};
  const Descriptor fd = open_file(path, about);
  if (static_cast<size_t>(about.st_size) > max_bytes)
    throw Error("file", path + ": " + std::to_string(about.st_size) + " bytes, at most " + std::to_string(max_bytes) +
                            " are read");
  return read_all(fd.get(), path, max_bytes, false);
}

std::string read_stream(const std::string& path, size_t max_bytes) {
  struct stat about {};
  const Descriptor fd = open_now(path, about);
  return read_all(fd.get(), path, max_bytes, S_ISFIFO(about.st_mode));
}

// Of its descriptor: opened by a name it would begin anew, and a socket cannot be opened at all.
std::string read_standard_input(size_t max_bytes) { return read_all(STDIN_FILENO, "standard input", max_bytes, false); }

}  // namespace birkhoff::io
