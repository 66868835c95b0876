// Attention in which every query lists the keys it sees: DeepSeek sparse attention and multi-head latent attention in
// the absorbed form (models.md D.2, F.1), V4's window + compressed entries with sinks (G.3, G.12).
//
// keys [T, S]: row t names the rows of k and v that query t sees, ascending, without repeats, then -1 to the end of the
// row. q, k, v, o and their gradients are all fp32 or all bf16; scores, softmax and sums are fp32, probabilities are
// rounded to the storage type before they multiply v. A query's result depends on its own row, its own list and what
// that names alone, and every sum over queries runs in their order: neither the number of threads nor other rows of the
// call can change a bit.
#pragma once
#include <cstdint>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/attention/key_rows.h"

namespace birkhoff::ops {

struct SparseAttentionShape {
  int64_t heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads; query head h reads kv head h / (heads/kv_heads)
  int64_t qk_dim = 0, v_dim = 0;    // per head
  float scale = 1.f;                // multiplies q.k, > 0
};

// q [T, heads*qk_dim], k [M, kv_heads*qk_dim], v [M, kv_heads*v_dim] (may overlap k: the first columns of its rows) ->
// o [T, heads*v_dim] and lse [T, heads] fp32 (log of the softmax denominator, the sink's share included; may be an
// empty Mat when no backward follows). sink [1, heads] fp32 or empty: a logit of every row that takes part in the
// denominator alone. A row without keys needs a sink; its o is zero.
struct SparseAttentionInput {
  CMat q;
  KeyRows k, v;
  CIndexMat keys;
  CMat sink = {};
};
void sparse_attention_forward(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionInput& in, Mat o,
                              Mat lse, Arena& scratch);

// What backward reads of forward.
struct SparseAttentionSaved {
  SparseAttentionInput in;
  CMat o, lse;
};
struct SparseAttentionGradients {
  Mat dq, dk, dv = {}, d_sink = {};
};
// dq [T, ...], dk [M, ...], dv [M, ...] assigned, d_sink [1, heads] fp32 += (empty when sink is). With an empty dv the
// values are the first v_dim columns of every kv head of k, and dk receives both gradients. Rows that nobody lists get
// zeros.
void sparse_attention_backward(const Exec& exec, const SparseAttentionShape& s, const SparseAttentionSaved& saved,
                               CMat d_o, const SparseAttentionGradients& d, Arena& scratch);

// The indexer's target (models.md F.2): p [T, S] fp32, probabilities exp(scale q.k - lse) of the keys in row t of
// `subset`, summed over heads and divided by their sum over the row; zeros past the row's end, and in a row whose keys
// have no mass at all. lse: of the attention that was run (dense or sparse).
void attention_target(const Exec& exec, const SparseAttentionShape& s, CMat q, CMat k, CMat lse, CIndexMat subset,
                      Mat p, Arena& scratch);

}  // namespace birkhoff::ops
