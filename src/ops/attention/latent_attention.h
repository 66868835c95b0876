// Multi-head latent attention in its absorbed form over a cache of latents (models.md D.2): one kv head, whose rows are
// key and, in their first columns, value. For few tokens behind many: what decoding does.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/attention/attention.h"

namespace birkhoff::ops {

// q [T, heads*qk_dim], latents [M, qk_dim] (v_dim <= qk_dim) -> o [T, heads*v_dim], all fp32 or all bf16; kv_heads
// is 1; latents may be encoded rows, which are read as numbers a piece at a time. The last T of the M rows are the
// queries' own, and query t sees rows first_key[t] .. (M - T) + t.
//
// Scores, softmax and sums are fp32, probabilities are rounded to the storage type before they multiply values. Keys
// are cut into pieces of kernels::kLatentPiece from first_key[t] on, which all cores share; a query adds up its own
// pieces in their order. So its result depends on its own row and what it sees alone: neither on threads, nor on the
// other queries of the call, nor on where rows lie.
void latent_attention_forward(const Exec& exec, const AttentionShape& s, CMat q, const KeyRows& latents,
                              std::span<const int32_t> first_key, Mat o, Arena& scratch);

}  // namespace birkhoff::ops
