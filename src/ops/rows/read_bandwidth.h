// What decoding and the optimizer are bound by.
#pragma once
#include "core/exec.h"

namespace birkhoff::ops {

// Bytes a second that all threads of exec read together from main memory: the best of several passes over a block that
// is far larger than the last-level cache (4 times, within 256 MiB to 2 GiB and a quarter of free memory), in huge
// pages, a contiguous part a thread. Takes about a second; other programs lower it. Throws Error without memory.
double read_bandwidth(const Exec& exec);

}  // namespace birkhoff::ops
