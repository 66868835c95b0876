// Pages of mapped files that do not all fit into memory. All of this is advice: whoever gives none waits longer.
#pragma once
#include <cstddef>
#include <span>

namespace birkhoff {

using ByteRange = std::span<const std::byte>;

// Begins to read what of the range is not in memory, and returns before it is there.
void will_need(ByteRange range);

// Takes pages that lie wholly in the range out of memory, if this process alone has them mapped and may write their
// file: what will not be needed soon, so that the kernel evicts nothing that will.
void give_back(ByteRange range);

// Of mapped files that nobody wrote to: takes pages that lie wholly in the range out of the process, not out of memory
// that has room for them.
void let_go(ByteRange range);

// A page that is read without having been asked for comes alone, not with megabytes around it.
void read_as_asked(ByteRange range);

}  // namespace birkhoff
