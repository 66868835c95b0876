// The pages of weights that products are about to read, where they lie in mapped files that memory cannot hold.
#pragma once
#include <span>
#include <vector>

#include "core/exec.h"
#include "core/pages.h"
#include "ops/gemm/gemm_pack.h"

namespace birkhoff::ops {

// Adds the memory that rows [first, first + count) of w lie in: of every tensor its rows and their scales, of a turned
// one all of it.
void add_memory(const StoredMatrix& w, int64_t first, int64_t count, std::vector<ByteRange>& to);
// The same of what a product with b reads.
void add_memory(const Packed& b, std::vector<ByteRange>& to);

// Asks for all of them (core/pages.h), on all threads. Nothing on a dry Exec.
void will_need(const Exec& exec, std::span<const ByteRange> ranges);
// The same of those that were read.
void give_back(const Exec& exec, std::span<const ByteRange> ranges);

}  // namespace birkhoff::ops
