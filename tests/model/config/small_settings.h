// Settings of small models, for the tests of this folder.
#pragma once
#include <nlohmann/json.hpp>

#include "train/train_config.h"

namespace birkhoff::test {

// A small mHC model with MLA and grouped experts, as settings.
inline nlohmann::json base() {
  return {{"residual", "mhc"},
          {"vocab_size", 256},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"kv_lora_rank", 16},
          {"qk_nope_head_dim", 16},
          {"qk_rope_head_dim", 8},
          {"v_head_dim", 16},
          {"intermediate_size", 96},
          {"first_k_dense_replace", 1},
          {"n_routed_experts", 8},
          {"num_experts_per_tok", 2},
          {"n_shared_experts", 1},
          {"moe_intermediate_size", 32},
          {"scoring_func", "sigmoid"},
          {"topk_method", "noaux_tc"},
          {"n_group", 4},
          {"topk_group", 2},
          {"seq_len", 32}};
}
inline nlohmann::json gqa() {
  return {{"residual", "plain"},      {"vocab_size", 256},        {"hidden_size", 64},      {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"intermediate_size", 96}};
}

inline train::RunConfig make(const nlohmann::json& from, const std::vector<std::string>& set) {
  return train::make_run_config(from, set);
}

}  // namespace birkhoff::test
