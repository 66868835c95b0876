// A Hugging Face model directory: config.json and safetensors, one file or shards with an index. Also what -m accepts: a run directory
// (its latest good checkpoint) or a checkpoint.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/model.h"

namespace birkhoff::checkpoint {

// The model directory that `path` means: itself when it holds a config.json and weights, the newest checkpoint that verifies when it is a run.
// Throws Error when there is none; `note` receives a sentence when an older checkpoint had to be used.
std::string resolve_model_directory(const std::string& path, std::string* note = nullptr);

nlohmann::json read_config_json(const std::string& directory);

// Fills the masters of m from the safetensors of `directory` (F32, BF16 or F16, converted to fp32) and refreshes nothing.
// Missing, extra, wrong-shaped and wrong-typed tensors are one Error that lists them all, our name and theirs. Ignored without
// complaint: rotary_emb.inv_freq buffers, lm_head.weight of tied models, layers after the last (multi-token prediction).
void load_weights(const std::string& directory, model::Model& m);

// Writes config.json (`config`) and model.safetensors, fp32 or bf16, into an existing directory.
void save_weights(const std::string& directory, const model::Model& m, const nlohmann::json& config, DType dtype);

}  // namespace birkhoff::checkpoint
