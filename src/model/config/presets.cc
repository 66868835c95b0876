#include "model/config/presets.h"

#include "core/error.h"
#include "core/nearest.h"

namespace birkhoff::model {

const Preset& find_preset(const std::string& name) {
  std::vector<std::string> names;
  std::string list;
  for (const Preset& p : presets()) {
    if (p.name == name) return p;
    names.push_back(p.name);
    list += (list.empty() ? "" : ", ") + p.name;
  }
  const std::string near = nearest(name, names);
  throw Error("preset", "unknown preset \"" + name + "\"" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"),
              "one of " + list, ExitCode::usage);
}

}  // namespace birkhoff::model
