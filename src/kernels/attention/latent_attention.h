// Attention over latents: all heads read the same rows, whose first columns are the values (one thread). Keys are cut
// into pieces of kLatentPiece; what a piece finds is folded in their order.
//
// Columns as in kernels/attention/attention.h: column c is token c / heads and head c % heads.
#pragma once
#include <cstdint>

#include "kernels/attention/attention.h"

namespace birkhoff::kernels {

// Keys of a piece: as many as stay in a core's own cache between the scores and the values.
inline constexpr int64_t kLatentPiece = 256;
inline constexpr int64_t kLatentColumns = 128;  // most columns of a call; a multiple of 16

struct LatentPiece {
  AttentionRows q;      // row of token i, the heads side by side
  AttentionRows cache;  // row of key 0
  int64_t keys;         // at most kLatentPiece
  int64_t heads, qk_dim, v_dim;
  int64_t col_begin, col_end;
  int64_t first_visible;  // last key of the piece that token 0 sees; < 0: none
  float scale;            // > 0
  // Of the columns from col_begin on, rounded up to 16: largest logit in units of log2, sum of powers and of powers
  // times values [column][v_dim rounded up to 16], both relative to it. Anything finite where a column sees no key.
  float *top, *total, *o;
  void* scratch;
};

// Pieces one after another for one column: top (overwritten) and total are `step` apart, rows of o `o_step`.
struct LatentFold {
  float* top;
  const float *total, *o;
  int64_t pieces, step, o_step, v_dim;
  void* out;  // [v_dim]
};

struct LatentAttentionKernels {
  int64_t (*scratch_bytes)(int64_t qk_dim, int64_t v_dim, int64_t columns);
  void (*piece_f32)(const LatentPiece&);
  void (*piece_bf16)(const LatentPiece&);
  void (*fold_f32)(const LatentFold&);
  void (*fold_bf16)(const LatentFold&);
};
BK_DECLARE_TILE_KERNELS(LatentAttentionKernels, latent_attention_kernels)

}  // namespace birkhoff::kernels
