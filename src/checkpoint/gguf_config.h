// What the metadata of a GGUF file says of the model, as the config.json of the same model would.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/gguf.h"

namespace birkhoff::checkpoint {

struct GgufDescription {
  // Rows of q and k stand as ggml rotates them: two that rotate with each other are neighbours.
  bool interleaved = false;
  std::vector<std::string> notes;  // what the file leaves open, and what was taken
};

// model::config_from_json reads the result. Throws Error naming file, key and value: an architecture that is not known,
// keys that are missing, of another type, or that mean something the engine does not compute.
nlohmann::json gguf_config(const io::GgufModel& m, GgufDescription& description);

}  // namespace birkhoff::checkpoint
