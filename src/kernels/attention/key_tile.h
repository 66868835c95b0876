// Keys as a product reads them: where they lie if that can be, else copied. Include from *.isa.cc only.
#pragma once
#include "kernels/attention/softmax_block.h"
#include "kernels/gemm/block_pack.h"

namespace birkhoff::kernels::BK_ISA {

// Whether rows r .. r + n - 1 follow each other in memory.
inline bool consecutive(const AttentionRows& x, int64_t r, int64_t n) {
  return !x.pages || (x.first + r) / kPageRows == (x.first + r + n - 1) / kPageRows;
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Asks for rows [r, end) of the next step while this one is computed.
template <class T>
inline void fetch_rows(const AttentionRows& x, int64_t r, int64_t end, int64_t dim) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (; r < end; ++r) {
    const T* row = row_of<T>(x, r);
    for (int64_t c = 0; c < dim; c += kLine) __builtin_prefetch(row + c, 0, 2);
  }
}

template <class Op>
struct KeyTile {
  const Op* data;
  int64_t ld;
};

// Rows r .. r + here - 1 of `dim` columns as `a` of a product, [rows][depth]; copy has room for that.
template <class T>
inline KeyTile<Operand<T>> key_tile(const AttentionRows& x, int64_t r, int64_t here, int64_t rows, int64_t dim,
                                    int64_t depth, Operand<T>* copy) {
  if constexpr (sizeof(T) == sizeof(Operand<T>))
    if (here == rows && depth == dim && consecutive(x, r, here)) return {row_of<T>(x, r), x.stride};
  pack_rows([&](int64_t i) { return row_of<T>(x, r + i); }, here, dim, copy, depth, rows);
  return {copy, depth};
}

}  // namespace birkhoff::kernels::BK_ISA
