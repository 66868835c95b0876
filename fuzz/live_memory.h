// Memory held through operator new while one input is looked at. Defines the program's operator new and delete.
#pragma once
#include <cstddef>

namespace birkhoff::fuzz::live_memory {

// Counts from here on; a request that would make the live bytes exceed ten times `limit` fails with std::bad_alloc.
void start(size_t limit);
// The largest number of live bytes since start(), requests that failed included.
size_t stop();

}  // namespace birkhoff::fuzz::live_memory
