// The metadata of a GGUF file for a model: the way back of gguf_config.h, in the words of llama.cpp.
#pragma once
#include <string>
#include <vector>

#include "io/gguf_writer.h"
#include "model/config/config.h"

namespace birkhoff::checkpoint {

// general.architecture of the model: llama (with experts: Mixtral), qwen2, qwen3, deepseek, deepseek2, deepseek32 or
// deepseek4. Throws Error naming the setting that GGUF has no place for.
std::string gguf_architecture(const model::ModelConfig& c);
// Blocks that a file has: those of the model and its prediction modules, of V4 those of the model alone.
int64_t gguf_blocks(const model::ModelConfig& c);
// Appends that key and all that speak of sizes, rotation and experts. Throws Error as above.
void put_gguf_settings(io::GgufMetadata& m, const model::ModelConfig& c);
// What llama.cpp will compute otherwise than the file means, or not open, a sentence each.
std::vector<std::string> gguf_notes(const model::ModelConfig& c);

}  // namespace birkhoff::checkpoint
