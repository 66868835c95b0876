// Text a finished model writes, for the report and the demo.
#pragma once
#include <cstdint>
#include <string>

#include "infer/engine.h"

namespace birkhoff::train {

// Some 600 bytes at temperature 0.8 from a text's beginning (bytes: a line break), from a model on disk or in training;
// windows of seq_len positions at most.
std::string sample_text(const infer::Engine& engine, int64_t seq_len);

}  // namespace birkhoff::train
