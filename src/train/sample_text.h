// Text a finished model writes, for the report and the demo.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace birkhoff::train {

// Some 600 bytes at temperature 0.8 from a text's beginning (bytes: a line break), from the newest good checkpoint of
// the run; windows of seq_len positions at most.
std::string sample_text(const std::string& run, int64_t seq_len, int threads);

}  // namespace birkhoff::train
