// Causal softmax attention over packed rows, for multi-head, grouped-query and expanded multi-head latent attention.
//
// T query rows and M key rows; the last T of the M keys are the queries' own tokens (M == T in training, M > T when a
// cache holds earlier ones). Query row t may see keys first_key[t] .. (M - T) + t. Document and batch boundaries are
// nothing but first_key. Scores, softmax and sums are fp32; probabilities are rounded to the compute type before they
// multiply V. A query's result does not depend on which other queries share the call, nor on how keys before its
// first_key came about.
#pragma once
#include <cstdint>
#include <span>

#include "core/exec.h"
#include "core/view.h"
#include "ops/attention/key_rows.h"

namespace birkhoff::ops {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads; query head h reads kv head h / (heads/kv_heads)
  int64_t qk_dim = 0, v_dim = 0;    // per head
  float scale = 1.f;                // multiplies q.k
};

// q [T, heads*qk_dim], k [M, kv_heads*qk_dim], v [M, kv_heads*v_dim] -> o [T, heads*v_dim] and lse [T, heads] fp32 (log
// of the softmax denominator, with the row maximum folded in; may be an empty Mat when no backward follows). k and v
// may be views with a stride (e.g. interleaved per head is NOT supported: head h's k is columns h*qk_dim ..).
void attention_forward(const Exec& exec, const AttentionShape& s, CMat q, const KeyRows& k, const KeyRows& v,
                       std::span<const int32_t> first_key, Mat o, Mat lse);

// The same for several texts in one region of tasks: a decoding step of each alone is too little for all cores.
struct AttentionText {
  CMat q;
  KeyRows k, v;
  std::span<const int32_t> first_key;
  Mat o, lse;
};
void attention_forward(const Exec& exec, const AttentionShape& s, std::span<const AttentionText> texts);

// What backward reads of a forward with M == T.
struct AttentionSaved {
  CMat q, k, v;
  std::span<const int32_t> first_key;
  // Ascending row indices at which first_key never reaches back across (0 first): rows of different segments never
  // attend to each other, which is what the work is split by.
  std::span<const int32_t> segment_start;
  CMat o, lse;
};
struct AttentionGradients {
  Mat dq, dk, dv;
};
// d assigned. Gradients of a kv head sum over its query heads in head order.
void attention_backward(const Exec& exec, const AttentionShape& s, const AttentionSaved& saved, CMat d_o,
                        const AttentionGradients& d);

// Widths of one head of multi-head latent attention.
struct MlaShape {
  int64_t heads = 0, nope = 0, rope = 0, v_dim = 0;
};
// Multi-head latent attention keeps one rotary key per token; the expanded form copies it behind every head's k_nope.
// kv [T, heads*(nope+v_dim)] (per head: k_nope then v), k_rope [T, rope] -> k [T, heads*(nope+rope)], v [T,
// heads*v_dim].
void mla_expand_kv(const Exec& exec, const MlaShape& s, CMat kv, CMat k_rope, Mat k, Mat v);
// The transpose: dkv and dk_rope assigned; dk_rope sums over heads in head order (fp32 sum, one rounding).
void mla_expand_kv_backward(const Exec& exec, const MlaShape& s, CMat dk, CMat dv, Mat dkv, Mat dk_rope);

}  // namespace birkhoff::ops
