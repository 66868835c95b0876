#include "kernels/attention/attention.h"
#include "kernels/attention/few_columns.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

constexpr int64_t kColumns = 64;  // columns per block; their number and order do not matter for the result
constexpr int64_t kRowStep = 32;

template <class Op>
struct Buffers {
  Op* q;               // per block: b = Q^T [qk][kColumns]
  float* acc;          // per block: O^T [v][kColumns], not yet divided
  float *top, *total;  // [columns] reference score, sum of 2^(c (score - top))
  int32_t* seen;       // [columns] keys a column sees; padding columns copy the last one
  Op *k, *v;           // a = K [kKeys][qk], a = V^T [v][kKeys]
  float* s;            // S^T [kKeys][kColumns]
  Op* p;               // b = P^T [kKeys][kColumns]
  int64_t qk, vd;      // padded widths
};

template <class Op>
int64_t layout(void* base, int64_t qk_dim, int64_t v_dim, int64_t columns, Buffers<Op>& b) {
  Pieces pieces(base);
  const int64_t n = round_up(columns, kColumns);
  b.qk = round_up(qk_dim, kDepth<Op>);
  b.vd = round_up(v_dim, 16);
  b.q = pieces.take<Op>(n * b.qk);
  b.acc = pieces.take<float>(n * b.vd);
  b.top = pieces.take<float>(n);
  b.total = pieces.take<float>(n);
  b.seen = pieces.take<int32_t>(n);
  b.k = pieces.take<Op>(kKeys * b.qk);
  b.v = pieces.take<Op>(kKeys * b.vd);
  b.s = pieces.take<float>(kKeys * kColumns);
  b.p = pieces.take<Op>(kKeys * kColumns);
  return pieces.used();
}

// Scores, softmax and values of one block of columns against `rows` keys (a multiple of kRowStep) already packed.
template <class T, class Op>
void block_step(const Buffers<Op>& b, int64_t block, const int32_t* limit, int64_t columns, int64_t rows, float c) {
  const int64_t n = round_up(columns, 16);
  float* acc = b.acc + block * kColumns * b.vd;
  product(b.k, b.qk, b.q + block * kColumns * b.qk, kColumns, b.s, kColumns, rows, n, b.qk, false);
  mask_scores(limit, n, rows, b.s, kColumns);
  for (int64_t j = 0; j < n; j += kLanes) {
    const V shrink =
        softmax_step<T, kColumns>(b.s + j, seen_rows(limit[j + kLanes - 1], rows), rows, set1(c), b.p + j * kPair<Op>,
                                  b.top + block * kColumns + j, b.total + block * kColumns + j);
    if (reduce_max(set1(1.f) - shrink) > 0.f)  // mostly the reference stands and every factor is exactly 1
      for (int64_t d = 0; d < b.vd; ++d) store(acc + d * kColumns + j, load(acc + d * kColumns + j) * shrink);
  }
  product(b.v, kKeys, b.p, kColumns, acc, kColumns, b.vd, n, rows, true);
}

// Divides by the sums and writes the rows of a block's columns.
template <class T, class Op>
void finish_block(const AttentionForward& a, const Buffers<Op>& b, int64_t block, int64_t columns) {
  const int64_t first = a.col_begin + block * kColumns;
  float* total = b.total + block * kColumns;
  const float* top = b.top + block * kColumns;
  store_lse(a, first, columns, top, total);
  for (int64_t j = 0; j < kColumns; j += kLanes) store(total + j, set1(1.f) / load(total + j));
  unpack_transposed<T>(b.acc + block * kColumns * b.vd, kColumns, total, columns, a.v_dim, [&](int64_t j) {
    const int64_t col = first + j;
    return static_cast<T*>(a.o) + col / a.heads * a.o_stride + col % a.heads * a.v_dim;
  });
}

template <class T>
void forward_many(const AttentionForward& a) {
  using Op = Operand<T>;
  const TileScope tiles;
  Buffers<Op> b;
  const int64_t columns = a.col_end - a.col_begin, blocks = (columns + kColumns - 1) / kColumns;
  layout(a.scratch, a.qk_dim, a.v_dim, columns, b);
  const auto in_block = [&](int64_t block) {
    return columns - block * kColumns < kColumns ? columns - block * kColumns : kColumns;
  };
  for (int64_t block = 0; block < blocks; ++block) {
    const auto query = [&](int64_t j) {
      const int64_t col = a.col_begin + block * kColumns + j;
      return static_cast<const T*>(a.q.data) + col / a.heads * a.q.stride + col % a.heads * a.qk_dim;
    };
    pack_b_transposed(query, in_block(block), a.qk_dim, b.q + block * kColumns * b.qk, kColumns, b.qk, kColumns);
  }
  zero(b.acc, blocks * kColumns * b.vd);
  zero(b.total, blocks * kColumns);
  for (int64_t j = 0; j < blocks * kColumns; j += kLanes) store(b.top + j, set1(kMasked));

  for (int64_t j = 0; j < blocks * kColumns; ++j)
    b.seen[j] = static_cast<int32_t>(a.first_visible + (a.col_begin + (j < columns ? j : columns - 1)) / a.heads + 1);

  const int64_t keys = b.seen[columns - 1];
  for (int64_t k0 = 0; k0 < keys; k0 += kKeys) {
    const int64_t here = keys - k0 < kKeys ? keys - k0 : kKeys, padded = round_up(here, kRowStep);
    const auto key = [&](int64_t i) { return row_of<T>(a.k, k0 + i); };
    const auto value = [&](int64_t i) { return row_of<T>(a.v, k0 + i); };
    pack_rows(key, here, a.qk_dim, b.k, b.qk, padded);
    pack_a_transposed(value, here, a.v_dim, b.v, kKeys, b.vd, padded);
    for (int64_t block = 0; block < blocks; ++block) {
      int32_t limit[kColumns];
      const int64_t count = in_block(block);
      for (int64_t j = 0; j < kColumns; ++j) limit[j] = b.seen[block * kColumns + j] - static_cast<int32_t>(k0);
      if (limit[count - 1] <= 0) continue;
      const int64_t rows = limit[count - 1] < here ? round_up(limit[count - 1], kRowStep) : padded;
      block_step<T>(b, block, limit, count, rows, a.scale * kLog2e);
    }
  }
  for (int64_t block = 0; block < blocks; ++block) finish_block<T>(a, b, block, in_block(block));
}

template <class T>
void forward(const AttentionForward& a) {
  if (a.col_end - a.col_begin <= kFew)
    forward_few<T>(a);
  else
    forward_many<T>(a);
}

template <class T>
int64_t bytes_of(int64_t qk_dim, int64_t v_dim, int64_t columns) {
  FewBuffers<T> few;
  if (columns <= kFew) return layout_few(nullptr, qk_dim, v_dim, few);
  Buffers<Operand<T>> many;
  return layout(nullptr, qk_dim, v_dim, columns, many);
}

int64_t forward_scratch(int64_t qk_dim, int64_t v_dim, int64_t columns) {
  const int64_t wide = bytes_of<float>(qk_dim, v_dim, columns), narrow = bytes_of<bf16>(qk_dim, v_dim, columns);
  return wide > narrow ? wide : narrow;
}

}  // namespace

const AttentionForwardKernels attention_forward_kernels = {forward_scratch, forward<float>, forward<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
