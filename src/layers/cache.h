// What attention keeps of earlier tokens. Every kind of layer has a Cache: rows of tokens, in pages that texts share
// (ops/attention/paged_rows.h), and for what is no row (V4's windows) a Slot of every text.
#pragma once
#include "layers/pass.h"
#include "ops/attention/paged_rows.h"

namespace birkhoff::layers {

// What of a forward outlives it: for a backward everything that it reads; nothing of a forward into caches.
enum class Keep : uint8_t { outputs, backward, cached };

// Of layers whose cache is rows alone.
struct NoSlot {
  template <class Spec>
  static NoSlot take(Arena& /*arena*/, const Spec& /*s*/, DType /*dtype*/, int64_t /*capacity*/) {
    return {};
  }
};

// The first `keys` rows of a part's text, where they lie or as numbers of `dtype` in scratch.
inline ops::KeyRows cached_keys(const Pass& p, const ops::PagedRows& pool, const CachedPart& part, DType dtype) {
  if (pool.holds(dtype)) return pool.view(part.pages, part.keys());
  const Mat rows = p.scratch.mat(dtype, part.keys(), pool.cols());
  pool.read(p.exec, part.pages, rows);
  return rows;
}

}  // namespace birkhoff::layers
