// Softmax attention of one kv head over one stretch of keys, forward and backward (one thread).
//
// All work is done on transposed scores: S^T = K Q^T has a query per lane, so maxima, sums and the masks need no
// reduction across lanes, K is read as it lies in memory and the probabilities come out in the order the next product
// reads.
//
// A *column* is one query of one head: column c is token c / heads and head c % heads of the group that shares the kv
// head. Key j of the stretch is row j of k and v; token i of the stretch sees keys [0, first_visible + i].
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

inline constexpr int64_t kPageRows = 64;

// Typed rows: element (r, c) is data[r * stride + c]. With pages row r is where row first + r of a text stands: row
// (first + r) % kPageRows of page pages[(first + r) / kPageRows], pages being page_bytes apart.
struct AttentionRows {
  const void* data;
  int64_t stride;
  const int32_t* pages = nullptr;
  int64_t page_bytes = 0, first = 0;
};

struct AttentionForward {
  AttentionRows q, k, v;  // q: row of token i, the group's heads side by side (qk_dim each); k, v: row of key j
  void* o;                // row of token i, heads side by side (v_dim each)
  int64_t o_stride;
  float* lse;  // row of token i, one value per head; or null
  int64_t lse_stride;
  int64_t heads, qk_dim, v_dim;
  int64_t col_begin, col_end;  // the columns to compute
  int64_t first_visible;       // last key that token 0 sees
  float scale;                 // > 0
  void* scratch;               // scratch_bytes of the family, 64-byte aligned
};

struct AttentionBackward {
  AttentionRows q, k, v, o, d_o;
  const float* lse;
  int64_t lse_stride;
  void* dq;  // rows of tokens, assigned
  int64_t dq_stride;
  float* dk;  // [keys rounded up to 64, round_up(qk_dim, 16)] fp32, added to, not yet multiplied by scale
  float* dv;  // [keys rounded up to 64, round_up(v_dim, 16)] fp32, added to
  int64_t heads, qk_dim, v_dim, tokens;
  int64_t first_visible;
  float scale;
  void* scratch;
};

struct AttentionForwardKernels {
  int64_t (*scratch_bytes)(int64_t qk_dim, int64_t v_dim, int64_t columns);
  void (*run_f32)(const AttentionForward&);
  void (*run_bf16)(const AttentionForward&);
};
BK_DECLARE_TILE_KERNELS(AttentionForwardKernels, attention_forward_kernels)

struct AttentionBackwardKernels {
  int64_t (*scratch_bytes)(int64_t qk_dim, int64_t v_dim, int64_t keys);
  void (*run_f32)(const AttentionBackward&);
  void (*run_bf16)(const AttentionBackward&);
  // out[i] = x[i] * scale, for the rows of dk and dv
  void (*store_f32)(const float* x, int64_t n, float scale, void* out);
  void (*store_bf16)(const float* x, int64_t n, float scale, void* out);
};
BK_DECLARE_TILE_KERNELS(AttentionBackwardKernels, attention_backward_kernels)

// Rows of mla_expand_kv and of its backward (ops/attention/attention.h).
struct MlaExpand {
  AttentionRows kv, k_rope;
  void *k, *v;
  int64_t k_stride, v_stride;
  int64_t rows, heads, nope, rope, v_dim;
};
struct MlaGather {
  AttentionRows dk, dv;
  void *dkv, *dk_rope;
  int64_t dkv_stride, dk_rope_stride;
  int64_t rows, heads, nope, rope, v_dim;
};
struct MlaKernels {
  void (*expand_f32)(const MlaExpand&);
  void (*expand_bf16)(const MlaExpand&);
  void (*gather_f32)(const MlaGather&);
  void (*gather_bf16)(const MlaGather&);
};
BK_DECLARE_KERNELS(MlaKernels, mla_kernels)

}  // namespace birkhoff::kernels
