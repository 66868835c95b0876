#include "io/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "io/mapped_file.h"
#include "io/user_files.h"

namespace birkhoff::io {
namespace {

namespace fs = std::filesystem;

void sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // a file system that cannot be synced this way still renames atomically
  fsync(fd);
  ::close(fd);
}

std::string parent_of(const std::string& path) {
  const std::string p = fs::path(path).parent_path().string();
  return p.empty() ? "." : p;
}

constexpr const char* kTemporary = ".tmp-";

std::string temporary_beside(const std::string& path) {
  const fs::path p(path);
  return (p.parent_path() / ("." + p.filename().string() + kTemporary + std::to_string(getpid()))).string();
}

// The file behind a chain of links, which need not exist.
std::string follow_links(std::string path) {
  for (int links = 0; links < 40; ++links) {
    std::error_code ec;
    const fs::path target = fs::read_symlink(path, ec);
    if (ec) return path;  // no link
    path = (fs::path(path).parent_path() / target).string();
  }
  file_error(path, "", ELOOP);
}

using Parts = std::span<const std::string_view>;

bool write_parts(int fd, Parts parts) {
  return std::all_of(parts.begin(), parts.end(), [&](std::string_view part) { return write_all(fd, part); });
}

// Devices, pipes and standard output: their names lead to what is open elsewhere, and a file in their place would not.
void write_in_place(const std::string& path, Parts parts, bool standard_output) {
  // A pipe without a reader is refused, not waited for; after that a slow reader is.
  const Descriptor fd(standard_output ? ::dup(STDOUT_FILENO)
                                      : ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (fd.get() < 0 && errno == ENXIO)
    throw Error("file", path + ": is a pipe that nobody reads", "start its reader, or give a file");
  if (fd.get() < 0) file_error(path, "cannot be written", errno);
  if (!standard_output) fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
  if (!write_parts(fd.get(), parts)) file_error(path, "write failed", errno);
}

// exists: the mode is that of the file that is replaced, of which the umask takes nothing.
void replace_file(const std::string& path, Parts parts, mode_t mode, bool exists) {
  const std::string temporary = temporary_beside(path);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) file_error(path, "cannot be written", errno);
  if (exists) fchmod(fd, mode);
  const char* failed = !write_parts(fd, parts) ? "write failed" : fsync(fd) != 0 ? "sync failed" : nullptr;
  int error = errno;
  ::close(fd);
  if (!failed && ::rename(temporary.c_str(), path.c_str()) != 0) failed = "rename failed", error = errno;
  if (failed) {
    ::unlink(temporary.c_str());
    file_error(path, failed, error);
  }
  sync_directory(parent_of(path));
}

}  // namespace

void write_file_atomic(const std::string& path, std::string_view content) { write_file_atomic(path, {&content, 1}); }

void write_file_atomic(const std::string& path, std::span<const std::string_view> parts) {
  struct stat there {
  }, out{};
  const bool exists = ::stat(path.c_str(), &there) == 0;
  if (!exists && errno != ENOENT) file_error(path, "cannot be written", errno);
  if (exists && S_ISDIR(there.st_mode)) file_error(path, "cannot be written", EISDIR);
  const bool is_output =
      exists && fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == there.st_dev && out.st_ino == there.st_ino;
  if (is_output || (exists && !S_ISREG(there.st_mode))) return write_in_place(path, parts, is_output);
  replace_file(follow_links(path), parts, exists ? there.st_mode & 07777 : 0644, exists);
}

void append_line(const std::string& path, std::string_view line) {
  const std::string ended = std::string(line) + "\n";
  const std::string_view part = ended;
  if (const PathKind kind = path_kind(path); kind == PathKind::directory || kind == PathKind::other)
    return write_in_place(path, {&part, 1}, false);
  const Descriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644));
  struct stat about {};
  if (fd.get() < 0 || fstat(fd.get(), &about) != 0) file_error(path, "cannot be written", errno);
  char last = '\n';
  if (about.st_size > 0 && ::pread(fd.get(), &last, 1, about.st_size - 1) != 1)
    file_error(path, "cannot be read", errno);
  if (!write_all(fd.get(), last == '\n' ? ended : "\n" + ended)) file_error(path, "write failed", errno);
}

void copy_file(const std::string& from, const std::string& to) {
  const MappedFile file(from);
  write_file_atomic(to, {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
}

StagedFile::StagedFile(const std::string& final_path) : final_(follow_links(final_path)) {
  if (const PathKind kind = path_kind(final_); kind == PathKind::directory)
    file_error(final_, "cannot be written", EISDIR);
  else if (kind == PathKind::other)
    throw Error("file", final_ + ": is a device or a pipe", "give a file, which is renamed when it is complete");
  staging_ = temporary_beside(final_);
  fd_ = ::open(staging_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) file_error(final_, "cannot be written", errno);
}

StagedFile::~StagedFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(staging_.c_str());
}

void StagedFile::append(const void* data, size_t bytes) {
  if (!write_all(fd_, {static_cast<const char*>(data), bytes})) file_error(final_, "write failed", errno);
}

void StagedFile::rewrite_start(const void* data, size_t bytes) {
  if (::pwrite(fd_, data, bytes, 0) != static_cast<ssize_t>(bytes)) file_error(final_, "write failed", errno);
}

void StagedFile::publish() {
  if (fsync(fd_) != 0) file_error(final_, "sync failed", errno);
  if (::rename(staging_.c_str(), final_.c_str()) != 0) file_error(final_, "rename failed", errno);
  ::close(std::exchange(fd_, -1));
  sync_directory(parent_of(final_));
}

StagedDirectory::StagedDirectory(const std::string& final_path)
    : final_(final_path), staging_(temporary_beside(final_path)) {
  std::error_code ec;
  fs::remove_all(staging_, ec);  // of an earlier process with this id
  fs::create_directories(staging_, ec);
  if (ec) file_error(final_, "cannot be created", ec.value());
}

StagedDirectory::~StagedDirectory() {
  std::error_code ec;
  if (!published_) fs::remove_all(staging_, ec);
}

void StagedDirectory::publish() {
  sync_directory(staging_);
  std::error_code ec;
  fs::remove_all(final_, ec);  // what stays makes the rename fail
  if (::rename(staging_.c_str(), final_.c_str()) != 0) file_error(final_, "rename failed", errno);
  published_ = true;
  sync_directory(parent_of(final_));
}

void replace_symlink(const std::string& link, const std::string& target) {
  const std::string temporary = temporary_beside(link);
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0) file_error(link, "cannot be linked", errno);
  if (::rename(temporary.c_str(), link.c_str()) != 0) file_error(link, "rename failed", errno);
}

void remove_leftovers(const std::string& directory, const std::string& of) {
  std::error_code ec;
  for (const auto& e : fs::directory_iterator(directory, ec)) {
    const std::string name = e.path().filename().string();
    const size_t at = name.rfind(kTemporary);
    if (name[0] != '.' || at == std::string::npos || (!of.empty() && name.substr(1, at - 1) != of)) continue;
    const std::string digits = name.substr(at + std::strlen(kTemporary));
    char* end = nullptr;
    const auto owner = static_cast<pid_t>(std::strtol(digits.c_str(), &end, 10));
    if (digits.empty() || *end != '\0' || owner <= 0) continue;
    const bool alive = kill(owner, 0) == 0 || errno != ESRCH;
    if (owner == getpid() || !alive) fs::remove_all(e.path(), ec);
  }
}

DirectoryLock::DirectoryLock(const std::string& directory) {
  const std::string path = directory + "/.lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) file_error(path, "cannot be opened", errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t n = ::pread(fd_, holder, sizeof holder - 1, 0);
    ::close(fd_);
    throw Error(
        "run", directory + " is in use by process " + (n > 0 ? std::string(holder, static_cast<size_t>(n)) : "unknown"),
        "wait for it, stop it, or choose another --out");
  }
  const std::string me = std::to_string(getpid());
  if (ftruncate(fd_, 0) != 0 || ::pwrite(fd_, me.data(), me.size(), 0) < 0)
    file_error(path, "cannot be written", errno);
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace birkhoff::io
