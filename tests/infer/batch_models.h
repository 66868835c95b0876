// Small models of every kind of attention, whose widths divide into blocks of 32.
#pragma once
#include <string>

#include "support/model_directory.h"

namespace birkhoff::test {

// latent, sparse, gqa or v4.
inline model::ModelConfig batch_config(const std::string& kind) {
  if (kind == "v4") return small_v4_config();
  model::ModelConfig c = small_config("plain", 1, kind != "gqa");
  c.hidden_size = 64, c.intermediate_size = 96, c.moe_intermediate_size = 32;
  if (kind == "gqa") return c;
  c.kv_lora_rank = 64, c.q_lora_rank = 32, c.qk_nope_head_dim = 32, c.v_head_dim = 32;
  if (kind.starts_with("sparse")) c.index_n_heads = 3, c.index_head_dim = 16, c.index_topk = 20;
  return c;
}

}  // namespace birkhoff::test
