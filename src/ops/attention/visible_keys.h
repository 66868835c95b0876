// The keys a query of DeepSeek-V4 sees (models.md G.3.5): the last tokens of its own document, then compressed entries.
#pragma once
#include <cstdint>
#include <span>

#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

// Query t stands at row first_query + t of a key matrix whose rows from first_entry on are compressed entries. keys [T,
// S], row t: the rows max(first[t], own row - window + 1) .. own row, then first_entry + e for every e of row t of
// entries [T, N] (ascending, then -1), then -1. S >= window + N. Queries stand before the entries.
void list_window_and_entries(const Exec& exec, std::span<const int32_t> first, int64_t first_query, int64_t window,
                             CIndexMat entries, int64_t first_entry, IndexMat keys);

}  // namespace birkhoff::ops
