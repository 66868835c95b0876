// What a model is made of and costs, from its configuration alone (counting rules: models.md K).
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "model/config/config.h"

namespace birkhoff::model {

struct Inventory {
  std::string model_type;
  int64_t total = 0;   // biases of the router included
  int64_t active = 0;  // used by one token, without the input embedding
  int64_t active_with_embedding = 0;
  int64_t mtp = 0;
  std::map<std::string, int64_t> groups;  // embedding, head, attention, dense_ffn, routed_experts, shared_experts,
                                          // router, hyper_connections, norms
  int64_t kv_elements_per_token = 0, kv_bytes_per_token = 0, kv_constant_bytes = 0;
  int64_t kv_int8_bytes_per_token = 0;  // with the scales; V4's entries stay bf16
  // Where latent attention keeps keys and values (LatentAttention::expanded); of other models the same as above.
  int64_t kv_expanded_bytes_per_token = 0, kv_expanded_int8_bytes_per_token = 0;
  // More while prediction modules draft (0 where windows cannot go back, so that they do not).
  int64_t mtp_kv_elements_per_token = 0, mtp_kv_int8_bytes_per_token = 0;
  int64_t train_bytes = 0;  // weights, packed copies, gradients, moments
  int64_t infer_bytes = 0;  // bf16 weights
  double flops_train = 0,
         flops_infer = 0;  // a token, matrix products; attention scores left out (they depend on the length)
};

Inventory take_inventory(const ModelConfig& c);
nlohmann::json to_json(const Inventory& v);

// Floating-point operations of one training step over rows sequences of seq_len: forward times three, causal half of
// the scores, hyper-connection products not counted (the convention of the published peer figures).
double model_flops(const ModelConfig& c, int64_t rows, int64_t seq_len);

}  // namespace birkhoff::model
