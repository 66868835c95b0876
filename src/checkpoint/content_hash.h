// What a model is, in one word: for results that are kept by it.
#pragma once
#include <string>

#include "core/exec.h"

namespace birkhoff::checkpoint {

// 32 hexadecimal digits of everything that decides what a model of a directory or a GGUF file (resolve_model) computes
// and how it reads text: the bytes of all tensors' files, the configuration, the tokenizer's files. adapter: beside
// them, as EngineOptions::adapter names it, or "". Reads the files once, on all threads. Throws Error.
std::string content_hash(const Exec& exec, const std::string& path, const std::string& adapter = "");

}  // namespace birkhoff::checkpoint
