#include "eval/sandbox/work_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "io/user_files.h"

namespace birkhoff::eval {
namespace {

std::vector<std::string> names_in(int folder) {
  std::vector<std::string> names;
  DIR* d = fdopendir(dup(folder));
  if (!d) return names;
  rewinddir(d);
  while (const dirent* e = readdir(d))
    if (const std::string name = e->d_name; name != "." && name != "..") names.push_back(name);
  closedir(d);
  return names;
}

int open_folder(int parent, const std::string& name) {
  fchmodat(parent, name.c_str(), 0700, 0);
  return openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

// Folders in folders come up to `top` one level at a time, under numbers: two descriptors suffice for any depth, and no
// path grows long.
void empty(int top) {
  uint64_t number = 0;
  for (std::vector<std::string> names; !(names = names_in(top)).empty();) {
    size_t failures = 0;
    for (const std::string& name : names) {
      if (unlinkat(top, name.c_str(), 0) == 0) continue;
      const int inner = open_folder(top, name);
      for (const std::string& in : names_in(inner)) {
        if (unlinkat(inner, in.c_str(), 0) == 0) continue;
        fchmodat(inner, in.c_str(), 0700, 0);  // moving a folder writes its ".."
        while (renameat(inner, in.c_str(), top, std::to_string(number++).c_str()) != 0 &&
               (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR || errno == EISDIR)) {
        }
      }
      if (inner >= 0) close(inner);
      failures += unlinkat(top, name.c_str(), AT_REMOVEDIR) != 0;
    }
    if (failures == names.size()) return;  // what cannot be removed stays
  }
}

}  // namespace

WorkFolder::WorkFolder(bool of_nobody) : path_("/tmp/birkhoff-program-" + std::to_string(getpid()) + "-XXXXXX") {
  if (!mkdtemp(path_.data())) io::file_error(path_, "cannot be made", errno);
  if (of_nobody && chown(path_.c_str(), 65534, 65534) != 0) {
    const int error = errno;
    rmdir(path_.c_str());
    io::file_error(path_, "cannot be given to nobody", error);
  }
}

WorkFolder::~WorkFolder() {
  const io::Descriptor folder(open_folder(AT_FDCWD, path_));
  empty(folder.get());
  rmdir(path_.c_str());
}

}  // namespace birkhoff::eval
