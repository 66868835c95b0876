// What the system knows of this process.
#pragma once
#include <cstdint>

namespace birkhoff {

// Largest resident memory since the process began, or since the last reset_peak_rss(), in MiB.
int64_t peak_rss_mib();
void reset_peak_rss();

}  // namespace birkhoff
