// Named settings, compiled in from presets/*.json.
#pragma once
#include <string>
#include <vector>

namespace birkhoff::model {

struct Preset {
  std::string name;
  std::string json;  // flat settings of the model and of its training
};
const std::vector<Preset>& presets();
// Throws Error with the nearest name.
const Preset& find_preset(const std::string& name);

}  // namespace birkhoff::model
