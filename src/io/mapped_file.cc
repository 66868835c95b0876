#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "io/user_files.h"

namespace birkhoff::io {

// Entries are never freed, only used again, so that a signal handler may walk the list at any moment. begin is null
// while an entry is free; the rest is written before it and read after it.
struct MappedFile::Mapping {
  std::atomic<const uint8_t*> begin{nullptr};
  size_t size = 0;
  std::string path;
  struct stat about {};
  Mapping* next = nullptr;

  // The same file, with other content.
  bool changed() const {
    struct stat now {};
    return ::stat(path.c_str(), &now) == 0 && now.st_dev == about.st_dev && now.st_ino == about.st_ino &&
           (now.st_size != about.st_size || now.st_mtim.tv_sec != about.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != about.st_mtim.tv_nsec);
  }
};

namespace {
std::mutex mappings_lock;                              // of those who change the list
std::atomic<void*> all_mappings{nullptr};              // first of the list
std::vector<std::string>& changed_before() {           // paths of mappings that are gone; guarded by the lock
  static auto& paths = *new std::vector<std::string>;  // outlives every mapping
  return paths;
}
}  // namespace

MappedFile::Mapping* MappedFile::enter(const std::string& path, const void* data, size_t size,
                                       const struct stat& about) {
  const std::lock_guard guard(mappings_lock);
  auto* first = static_cast<Mapping*>(all_mappings.load());
  Mapping* m = first;
  while (m && m->begin.load()) m = m->next;
  const bool fresh = m == nullptr;
  if (fresh) m = new Mapping;
  m->size = size;
  m->path = path;
  m->about = about;
  m->begin.store(static_cast<const uint8_t*>(data));
  if (fresh) {
    m->next = first;
    all_mappings.store(m);
  }
  return m;
}

MappedFile::MappedFile(const std::string& path) {
  struct stat about {};
  const Descriptor fd = open_file(path, about);
  size_ = static_cast<size_t>(about.st_size);
  if (size_ == 0) return;
  void* map = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (map == MAP_FAILED) file_error(path, "cannot be mapped", errno);
  data_ = static_cast<const uint8_t*>(map);
  mapping_ = enter(path, data_, size_, about);
}

MappedFile::MappedFile(MappedFile&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)),
      size_(std::exchange(o.size_, 0)),
      mapping_(std::exchange(o.mapping_, nullptr)) {}

MappedFile::~MappedFile() {
  if (!mapping_) return;
  const std::lock_guard guard(mappings_lock);
  if (mapping_->changed()) changed_before().push_back(mapping_->path);
  mapping_->begin.store(nullptr);
  munmap(const_cast<uint8_t*>(data_), size_);
}

const char* mapped_file_at(const void* address, bool& shorter) {
  const auto* at = static_cast<const uint8_t*>(address);
  for (auto* m = static_cast<MappedFile::Mapping*>(all_mappings.load()); m; m = m->next) {
    const uint8_t* begin = m->begin.load();
    if (!begin || at < begin || at >= begin + m->size) continue;
    struct stat now {};
    shorter = ::stat(m->path.c_str(), &now) == 0 && static_cast<size_t>(now.st_size) < m->size;
    return m->path.c_str();
  }
  return nullptr;
}

std::vector<std::string> mapped_files() {
  const std::lock_guard guard(mappings_lock);
  std::vector<std::string> paths;
  for (auto* m = static_cast<MappedFile::Mapping*>(all_mappings.load()); m; m = m->next)
    if (m->begin.load()) paths.push_back(m->path);
  return paths;
}

std::vector<std::string> changed_mapped_files() {
  const std::lock_guard guard(mappings_lock);
  std::vector<std::string> paths = changed_before();
  for (auto* m = static_cast<MappedFile::Mapping*>(all_mappings.load()); m; m = m->next)
    if (m->begin.load() && m->changed()) paths.push_back(m->path);
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

}  // namespace birkhoff::io
