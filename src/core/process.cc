#include "core/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace birkhoff {

int64_t peak_rss_mib() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) / 1024;
  rusage u{};  // without /proc; no reset reaches it
  getrusage(RUSAGE_SELF, &u);
  return u.ru_maxrss / 1024;
}

void reset_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

int64_t disk_read_bytes() {
  std::ifstream in("/proc/self/io");
  int64_t bytes = 0;
  for (std::string key; in >> key >> bytes;)
    if (key == "read_bytes:") return bytes;
  return 0;
}

namespace {

// The least limit of a group and those above it. In a container the path may be one of outside, of which nothing but
// the top is there.
size_t least_limit(const std::string& root, std::string group, const char* file) {
  size_t least = SIZE_MAX, limit = 0;
  while (true) {
    std::ifstream in(root + group + "/" + file);
    if (in >> limit) least = std::min(least, limit);  // "max" is no number
    const size_t parent = group.rfind('/');
    if (parent == std::string::npos) return least;
    group.resize(parent);
  }
}

}  // namespace

size_t group_memory_limit(const std::string& groups, const std::string& mount) {
  size_t least = SIZE_MAX;
  std::istringstream in(groups);
  for (std::string line; std::getline(in, line);) {  // number:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") least = std::min(least, least_limit(mount, path, "memory.max"));
    if (controllers.find(",memory,") != std::string::npos)
      least = std::min(least, least_limit(mount + "/memory", path, "memory.limit_in_bytes"));
  }
  return least;
}

size_t machine_memory_bytes() {
  const size_t bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  std::ifstream in("/proc/self/cgroup");
  std::ostringstream groups;
  groups << in.rdbuf();
  return std::min(bytes, group_memory_limit(groups.str(), "/sys/fs/cgroup"));
}

size_t available_memory_bytes() {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("MemAvailable:", 0) == 0)
      return std::min(static_cast<size_t>(std::atoll(line.c_str() + 13)) * 1024, machine_memory_bytes());
  return 0;
}

}  // namespace birkhoff
