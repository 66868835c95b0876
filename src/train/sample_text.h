// Text a finished byte model writes, for the report and the demo.
#pragma once
#include <string>

namespace birkhoff::train {

// 500 bytes at temperature 0.8 after a line break, from the newest good checkpoint of the run.
std::string sample_text(const std::string& run, int threads);

}  // namespace birkhoff::train
