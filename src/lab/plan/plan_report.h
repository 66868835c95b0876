// A plan as text for people and as JSON for scripts (docs/plan.md has the fields).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "lab/plan/plan.h"

namespace birkhoff::lab {

std::string describe(const Plan& plan);
nlohmann::json to_json(const Plan& plan);

}  // namespace birkhoff::lab
