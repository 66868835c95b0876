// Files and directories that appear under their name complete or not at all.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace birkhoff::io {

// Writes a temporary file beside `path`, syncs it, renames it over `path`, of which it keeps the permissions. A link
// stays and what it leads to is replaced; a device, a pipe and what is standard output already are written in place. On
// failure throws Error and removes the temporary.
void write_file_atomic(const std::string& path, std::string_view content);
// The same of parts that lie apart, one after another.
void write_file_atomic(const std::string& path, std::span<const std::string_view> parts);

// Adds a line and its end to a file, which may be absent; after a last line without an end a new one begins. Devices
// and pipes are written in place. Throws Error.
void append_line(const std::string& path, std::string_view line);
// Writes atomically the content of a regular file, which may be large.
void copy_file(const std::string& from, const std::string& to);

// A file being written, however large, under a temporary name beside its final one. publish() syncs and renames it;
// without publish() the destructor removes it.
class StagedFile {
 public:
  explicit StagedFile(const std::string& final_path);  // throws Error: a folder, a device, no right to write there
  ~StagedFile();
  StagedFile(const StagedFile&) = delete;
  StagedFile& operator=(const StagedFile&) = delete;
  void append(const void* data, size_t bytes);         // throws Error when the disk is full
  void rewrite_start(const void* data, size_t bytes);  // what was appended first; throws Error
  void publish();                                      // replaces an existing file

 private:
  std::string final_, staging_;
  int fd_ = -1;
};

// A directory being filled under a temporary name beside its final one. publish() syncs and renames it; without
// publish() the destructor removes it and all it holds.
class StagedDirectory {
 public:
  explicit StagedDirectory(const std::string& final_path);  // throws Error when it cannot be created
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;
  const std::string& path() const { return staging_; }
  void publish();  // replaces an existing final directory

 private:
  std::string final_, staging_;
  bool published_ = false;
};

// Points the symbolic link `link` at `target` in one step.
void replace_symlink(const std::string& link, const std::string& target);

// Removes from `directory` the temporaries that a killed process left there, of all files or those of the name `of`;
// those of other living processes stay.
void remove_leftovers(const std::string& directory, const std::string& of = "");

// Advisory lock on DIR/.lock, held until destruction or the end of the process. Throws Error naming the holder's
// process id when taken.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace birkhoff::io
