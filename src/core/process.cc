#include "core/process.h"

#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <string>

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

}  // namespace birkhoff
