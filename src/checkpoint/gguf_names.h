// Where GGUF files keep the parameters of a model.
#pragma once
#include <string>
#include <vector>

#include "model/config/config.h"
#include "model/weights.h"

namespace birkhoff::checkpoint {

// Rows [first_row, first_row + rows of the parameter) of a matrix of `rows` rows: the tensor itself, or that of one
// expert of those that are stacked in it.
struct GgufPlace {
  std::string name;
  int64_t rows = 0, first_row = 0;
  int64_t expert = -1, experts = 0;                             // experts 0: not stacked
  std::vector<int64_t> shape(int64_t cols, bool vector) const;  // that the tensor must have, outermost first
};

// The places that different files have for a parameter (by its V3 name), the usual one first. None: GGUF has no name
// for it.
std::vector<GgufPlace> gguf_places(const model::ModelConfig& c, const model::ParameterInfo& p);

// The two tensors that newer files have instead of kv_b_proj: k_b [heads, kv_lora, nope] and v_b [heads, v, kv_lora].
// Empty names for other parameters.
struct GgufSplitLatent {
  std::string k, v;
};
GgufSplitLatent gguf_split_latent(const model::ParameterInfo& p);

// Tensors that are no parameter: rotary buffers, copies of embedding and head in prediction modules, the router's bias
// for tokens of images, blocks past the model's.
bool gguf_ignores(const model::ModelConfig& c, std::string_view name);

}  // namespace birkhoff::checkpoint
