#include "io/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace birkhoff::io {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  throw Error("file", path + ": " + what + ": " + std::strerror(error),
              error == ENOSPC || error == EFBIG || error == EDQUOT ? "free some space or choose another directory"
                                                                   : "check the path and its permissions");
}

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

}  // namespace

void write_file_atomic(const std::string& path, std::string_view content) {
  const std::string temporary = temporary_beside(path);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail(path, "cannot be written", errno);
  const auto give_up = [&](const char* what, int error) {
    ::close(fd);
    ::unlink(temporary.c_str());
    fail(path, what, error);
  };
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) give_up("write failed", n < 0 ? errno : ENOSPC);
    content.remove_prefix(static_cast<size_t>(n));
  }
  if (fsync(fd) != 0) give_up("sync failed", errno);
  ::close(fd);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail(path, "rename failed", error);
  }
  sync_directory(parent_of(path));
}

StagedDirectory::StagedDirectory(const std::string& final_path)
    : final_(final_path), staging_(temporary_beside(final_path)) {
  std::error_code ec;
  fs::remove_all(staging_, ec);  // of an earlier process with this id
  fs::create_directories(staging_, ec);
  if (ec) fail(final_, "cannot be created", ec.value());
}

StagedDirectory::~StagedDirectory() {
  std::error_code ec;
  if (!published_) fs::remove_all(staging_, ec);
}

void StagedDirectory::publish() {
  sync_directory(staging_);
  std::error_code ec;
  if (fs::exists(final_)) fs::remove_all(final_, ec);
  if (::rename(staging_.c_str(), final_.c_str()) != 0) fail(final_, "rename failed", errno);
  published_ = true;
  sync_directory(parent_of(final_));
}

void replace_symlink(const std::string& link, const std::string& target) {
  const std::string temporary = temporary_beside(link);
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0) fail(link, "cannot be linked", errno);
  if (::rename(temporary.c_str(), link.c_str()) != 0) fail(link, "rename failed", errno);
}

void remove_leftovers(const std::string& directory) {
  std::error_code ec;
  for (const auto& e : fs::directory_iterator(directory, ec)) {
    const std::string name = e.path().filename().string();
    const size_t at = name.rfind(kTemporary);
    if (name[0] != '.' || at == std::string::npos) continue;
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
  if (fd_ < 0) fail(path, "cannot be opened", errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t n = ::pread(fd_, holder, sizeof holder - 1, 0);
    ::close(fd_);
    throw Error(
        "run", directory + " is in use by process " + (n > 0 ? std::string(holder, static_cast<size_t>(n)) : "unknown"),
        "wait for it, stop it, or choose another --out");
  }
  const std::string me = std::to_string(getpid());
  if (ftruncate(fd_, 0) != 0 || ::pwrite(fd_, me.data(), me.size(), 0) < 0) fail(path, "cannot be written", errno);
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace birkhoff::io
