// Multi-token prediction (DeepSeek-V3, models.md E.4). Module k = 1..D is one block of its own: from the hidden state
// of token i after k - 1 modules and the embedding of token i + k it predicts token i + k + 1, through the model's own
// embedding and head.
//
//   x = eh_proj [enorm(embedding); hnorm(hidden)],   hidden_k = norm_k(block(x)),   logits = head(hidden_k)
//
// The hidden state that module 1 reads is the model's, after its final norm. With several residual streams (V4,
// models.md G.8) a module reads and passes on the streams X [n, D] instead, before their collapse, and has a collapse
// of its own:
//
//   x_i = e_proj enorm(embedding) + h_proj hnorm(X_i)
//
// Behind caches the row of module k is that of the token which it reads: row j has token j and the hidden state of row
// j - 1 before it, so that it depends, as every row of the model, on the tokens up to its own. Its first k rows are of
// no token that training has; nothing attends to them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/stack.h"
#include "ops/rows/cross_entropy.h"

namespace birkhoff::model {

// The rows that a module runs over: those whose segment holds token i + k. The last k of every segment have nothing to
// read and are left out, so they count in no loss, no load and no balance. Rows are those of the module before (or of
// the model) without the last of each segment.
struct MtpRows {
  std::vector<int32_t> ids,
      labels;  // [T]: token i + k, and what follows it (kIgnoreLabel where it does not count)
  std::vector<int32_t> position, first_key, segment_start, sequence_start;  // as layers::TokenContext
  struct Run {
    int64_t from, to, rows;  // rows [from, from + rows) before are rows [to, to + rows) here
  };
  std::vector<Run> runs;
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  layers::TokenContext context() const { return {position, first_key, segment_start, sequence_start}; }
};
// Of modules 1, 2, ...; labels [T] as the model's own loss.
std::vector<MtpRows> mtp_rows(std::span<const int32_t> ids, std::span<const int32_t> labels,
                              const layers::TokenContext& ctx, size_t modules);
// Rows with a label that counts.
int64_t mtp_targets(const MtpRows& rows);

// Of one module over T rows of its own.
struct MtpTape {
  StackTape stack;
  MtpRows rows;            // empty in a dry pass
  Mat embedding;           // [T, D]
  Mat e_normed, h_normed;  // [T, D], [T*n, D]; of one stream the halves of `joined` [T, 2D]
  Mat joined;
  Mat e_rstd, h_rstd;      // [T, 1], [T*n, 1]
  Mat hidden, final_rstd;  // [T, D] after the module's norm, [T, 1]
};

// Memory of all modules over their rows, for backward.
std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, std::vector<MtpRows> rows, Recompute policy);
// The most that any rows need: every module as long as the model's T tokens. For a dry pass.
std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, int64_t tokens, Recompute policy);

// What module 1 reads of the model: hidden [T, D] after the final norm, or with several streams its last state [T,
// n*D].
CMat mtp_source(const Model& m, const StackTape& t, CMat hidden);
// Rows [tokens of ctx.parts, width] that module k reads of them, into the caches.
void write_mtp_source(const StackRun& r, const CachePool& caches, size_t k, CMat source);

// ids [T] of the model's pass stand for every module's in a dry pass; otherwise the tapes have their own.
void forward_mtp(const StackRun& r, std::span<const int32_t> ids, CMat source, std::vector<MtpTape>& tapes);

// Module k (from 0) over the tokens of ctx.parts, which go into the caches. It reads the rows before them of
// caches.mtp_source(k), and writes what the module after it reads.
MtpTape reserve_mtp_cached(Arena& arena, const Model& m, size_t k, int64_t tokens);
void forward_mtp_cached(const StackRun& r, size_t k, std::span<const int32_t> ids, MtpTape& tape,
                        const CachePool& caches);

// Losses of every module, and gradients, grads += ; d_source += the gradient of `source`. scale[k]: of the loss of
// every target of module k + 1.
std::vector<ops::LossSums> backward_mtp(const StackRun& r, CMat source, std::vector<MtpTape>& tapes,
                                        std::span<const float> scale, LayerLosses& losses, Mat d_source,
                                        Weights& grads);

}  // namespace birkhoff::model
