// A Hugging Face model directory: config.json and safetensors, one file or shards with an index. Also what -m accepts:
// a run directory (its latest good checkpoint) or a checkpoint.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/tensor_map.h"
#include "model/model.h"

namespace birkhoff::checkpoint {

// The model directory that `path` means: itself when it holds a config.json and weights, the newest checkpoint that
// verifies when it is a run. Throws Error when there is none; `note` receives a sentence when an older checkpoint had
// to be used.
std::string resolve_model_directory(const std::string& path, std::string* note = nullptr);

nlohmann::json read_config_json(const std::string& directory);

// Fills the masters of m from the tensors of `directory`, whatever number format they have (tensor_map.h), and
// refreshes nothing. Throws Error with everything that does not match.
void load_weights(const std::string& directory, model::Model& m);

// The elements of one tensor as fp32. False, and nothing is written, for other types than F32, BF16 and F16.
bool read_as_f32(const io::TensorEntry& e, float* out);

// Writes config.json (`config`) and the weights, fp32 or bf16, into an existing directory. source: the files the model
// was loaded from; what has not changed since is written with their bytes (save_model.h).
void save_weights(const std::string& directory, const model::Model& m, const nlohmann::json& config, DType dtype,
                  const TensorMap* source = nullptr);

}  // namespace birkhoff::checkpoint
