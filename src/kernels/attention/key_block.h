// Work in which every query lists the rows of k it meets: sparse attention and its indexer (one thread).
//
// Queries stand in blocks that share one gathered copy of the union of their keys. A *column* is one query of one head.
// All work is done on transposed scores, S^T = K Q^T with a column per lane, as in kernels/attention/attention.h. Keys
// that a query does not list are masked to an exact zero, and sums over keys run one by one, so the other queries of a
// block leave a query's bits as they are.
#pragma once
#include <cstdint>

#include "kernels/attention/attention.h"

namespace birkhoff::kernels {

struct KeyBlock {
  const int32_t* keys;   // [count] ascending, the union of the queries' lists
  const uint16_t* seen;  // [count] bit i: query i lists it; null: one query, which lists all
  int64_t count, queries;
};

// Column c stands at data + c / inner * outer_step + c % inner * inner_step.
struct Columns {
  const void* data;
  int64_t count, inner, outer_step, inner_step;
};

inline constexpr int64_t kKeyTile = 64;      // keys that are gathered at a time
inline constexpr int64_t kKeySlack = 64;     // rows past the last key that stored weights must have room for
inline constexpr int64_t kMostQueries = 16;  // of a block: the bits of KeyBlock::seen

// Stored weights (probabilities, score gradients): [count + kKeySlack][columns rounded up to 32] of at most 4 bytes.
inline int64_t stored_bytes(int64_t count, int64_t columns) {
  return (count + kKeySlack) * ((columns + 31) / 32 * 32) * 4;
}

struct SparseForward {
  KeyBlock block;
  AttentionRows q, k, v;  // q: the block's first query, the heads side by side; k, v: row 0 of the kv head
  const float* sink;      // [heads] or null
  void* o;
  int64_t o_stride;
  float* lse;  // or null
  int64_t lse_stride;
  int64_t heads, qk_dim, v_dim;
  float scale;  // > 0
  void* scratch;
};

struct SparseBackward {
  KeyBlock block;
  AttentionRows q, k, v, o, d_o;
  const float* lse;
  int64_t lse_stride;
  void* dq;  // assigned
  int64_t dq_stride;
  void *p, *ds;  // stored weights for key_gradient, in its type; not yet multiplied by scale
  float* delta;  // [queries], heads side by side: sum_j dO_j O_j
  int64_t delta_stride;
  int64_t heads, qk_dim, v_dim;
  float scale;
  void* scratch;
};

struct SparseTarget {
  KeyBlock block;
  AttentionRows q, k;
  const float* lse;
  int64_t lse_stride;
  float* sum;  // [count][kMostQueries] += the probabilities of these heads
  int64_t heads, qk_dim;
  float scale;
  void* scratch;
};

// acc row of key s (counted from first_key) += sum over columns of weights[u][column] x[column], for the block's keys u
// in [begin, end).
struct KeyGradient {
  KeyBlock block;
  int64_t begin, end;   // at most kKeyTile
  const void* weights;  // as stored by the backward of the same block
  Columns x;
  int64_t dim, first_key;
  float* acc;  // [kKeyTile][dim rounded up to 16]
  void* scratch;
};

struct SparseAttentionKernels {
  int64_t (*scratch_bytes)(int64_t qk_dim, int64_t v_dim, int64_t columns, int64_t keys);  // of either
  void (*forward_f32)(const SparseForward&);
  void (*forward_bf16)(const SparseForward&);
  void (*target_f32)(const SparseTarget&);
  void (*target_bf16)(const SparseTarget&);
};
BK_DECLARE_TILE_KERNELS(SparseAttentionKernels, sparse_attention_kernels)

struct SparseBackwardKernels {
  int64_t (*scratch_bytes)(int64_t qk_dim, int64_t v_dim, int64_t columns, int64_t keys);
  void (*backward_f32)(const SparseBackward&);
  void (*backward_bf16)(const SparseBackward&);
  int64_t (*key_gradient_bytes)(int64_t dim, int64_t columns);
  void (*key_gradient_f32)(const KeyGradient&);
  void (*key_gradient_bf16)(const KeyGradient&);
  // out[i] = x[i] * scale + y[i], y of n_y <= n elements
  void (*store_f32)(const float* x, int64_t n, float scale, const float* y, int64_t n_y, void* out);
  void (*store_bf16)(const float* x, int64_t n, float scale, const float* y, int64_t n_y, void* out);
};
BK_DECLARE_TILE_KERNELS(SparseBackwardKernels, sparse_backward_kernels)

struct IndexerScores {
  KeyBlock block;  // seen is not read: every query meets every key
  AttentionRows q, k;
  const float* w;  // [queries], w_stride apart, one value per head
  int64_t w_stride, heads, dim;
  float* out;  // [count rounded up to kKeyTile][kMostQueries]
  void* scratch;
};

struct IndexerGradient {
  KeyBlock block;  // with seen
  AttentionRows q, k;
  const float* w;
  int64_t w_stride, heads, dim;
  const float* p;  // [queries], p_stride apart: the target at each query's own keys, in order
  int64_t p_stride;
  float scale;
  float* loss;  // [queries] assigned: KL(p || softmax I)
  void* dq;     // assigned, as is dw
  int64_t dq_stride;
  float* dw;
  int64_t dw_stride;
  void* ds;  // stored weights for key_gradient; columns are head-major: head * queries + query
  void* scratch;
};

struct IndexerKernels {
  int64_t (*score_bytes)(int64_t dim, int64_t columns);
  int64_t (*gradient_bytes)(int64_t dim, int64_t columns, int64_t keys);
  void (*scores_f32)(const IndexerScores&);
  void (*scores_bf16)(const IndexerScores&);
  void (*gradient_f32)(const IndexerGradient&);
  void (*gradient_bf16)(const IndexerGradient&);
};
BK_DECLARE_TILE_KERNELS(IndexerKernels, indexer_kernels)

}  // namespace birkhoff::kernels
