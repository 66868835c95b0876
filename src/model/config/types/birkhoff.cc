// Our own type: every setting under its own name, V3's tensor names and hc_* (interfaces of hyper-connections).
#include <nlohmann/json.hpp>

#include "model/config/model_type.h"

namespace birkhoff::model::types {

const ModelType birkhoff{
    "birkhoff", nullptr,        {},       [](ModelConfig&) {}, same, same, [](const ModelConfig&) {},
    same_name,  common_ignores, no_copies};

}  // namespace birkhoff::model::types
