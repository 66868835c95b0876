// rope_scaling: the one setting that is an object.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "model/config/config.h"

namespace birkhoff::model {

// Old files: {"type": "linear"}; newer ones {"rope_type": ...}, perhaps inside rope_parameters with rope_theta. Throws
// Error.
void parse_rope(ModelConfig& c, const nlohmann::json& j);
nlohmann::json rope_to_json(const ops::RopeScaling& s);  // null: none

}  // namespace birkhoff::model
