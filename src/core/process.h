// What the system knows of this process.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace birkhoff {

// Largest resident memory since the process began, or since the last reset_peak_rss(), in MiB.
int64_t peak_rss_mib();
void reset_peak_rss();

// Bytes that this process had disks read so far; what came from the page cache is not among them. 0 where the system
// does not count.
int64_t disk_read_bytes();

// Memory this process may use: physical memory, or less where a control group limits it.
size_t machine_memory_bytes();
// Of that what could be given out now, pages of files among it that the system would let go. 0: not known.
size_t available_memory_bytes();
// The least that the control groups of a process, or those above them, allow in memory, of version 1 or 2: `groups` is
// what /proc/self/cgroup says, `mount` where the groups are. SIZE_MAX: no limit.
size_t group_memory_limit(const std::string& groups, const std::string& mount);

}  // namespace birkhoff
