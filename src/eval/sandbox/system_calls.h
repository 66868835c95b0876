// What a confined program may ask of the kernel: a seccomp filter in classic BPF.
#pragma once
#include <linux/filter.h>

#include <vector>

namespace birkhoff::eval {

// A list of what is allowed: an interpreter's reading, writing, memory, threads and clocks. Everything else, and calls
// that are newer than the list, is answered as by a kernel that does not have it, and libraries do without. What the
// list leaves out on purpose: new processes, sockets but pairs of connected ones (a socket of AF_UNIX reaches the
// session's bus), signals (the first process of a namespace ignores them, so that verdicts would depend on it), limits
// of other processes, truncating by name and changing rights, which Landlock does not see in every version.
std::vector<sock_filter> system_call_filter();

}  // namespace birkhoff::eval
