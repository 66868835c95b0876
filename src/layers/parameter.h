// What the parameters of a layer are, each a tensor of the model's file: how they start and how they are trained.
#pragma once
#include <cstdint>

namespace birkhoff::layers {

enum class Role : uint8_t {
  matrix,             // weights of a linear layer
  output_projection,  // the same, writing into the residual (o_proj, down_proj)
  embedding,
  head,
  norm,           // RMSNorm weight
  bias,           // added inside a layer, one per channel or head (attention sinks); zero at the start
  linear_bias,    // of a linear layer, one per output; zero at the start
  position_bias,  // of the gates of a compressor, [ratio, channels]; zero at the start
  router,         // gate.weight, fp32 arithmetic
  router_bias,    // e_score_correction_bias: no gradient, moved by the balance rule
  expert_table,   // tid2eid, whole numbers [V, K]: no gradient, never changes, not counted as parameters
  hc_fn,          // hyper-connection projection
  hc_scale,       // gating factors
  hc_base         // static part
};

}  // namespace birkhoff::layers
