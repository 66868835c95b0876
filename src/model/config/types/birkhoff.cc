// Our own type: every setting under its own name, V3's tensor names and hc_* (interfaces of hyper-connections).
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {

const ModelType birkhoff{.name = kOwnType};

}  // namespace birkhoff::model::types
