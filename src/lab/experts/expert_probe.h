// The loss of a model whose experts are taken away: how redundant they are (DeepSeekMoE, arXiv 2401.06066,
// section 4.5).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "eval/likelihood.h"
#include "model/routing_probe.h"

namespace birkhoff::lab {

struct ProbeData {
  std::vector<std::string> paths;  // files or folders
  int64_t seq_len = 0;             // 0: as trained
  bool validation = false;         // only the last 5 % of each source
};

// The probes of a command line: none first, then `disabled` top experts (R) each, then the replaced shared experts.
std::vector<model::RoutingProbe> probe_list(const std::vector<int64_t>& disabled, bool replace_shared);

// Loss over the windows of eval::window_likelihood under each probe; without one it is that of `birkhoff eval`. The
// model is opened once a probe with `options`, whose own probe is replaced. All probes are checked before any runs.
// result: called as each is done; progress: windows done, of those of all probes. Returns the layers that were probed
// and those left alone. Throws Error: model::check_routing_probe, data.
model::ExpertLayers run_probes(const std::string& directory, infer::EngineOptions options, const ProbeData& data,
                               const std::vector<model::RoutingProbe>& probes,
                               const std::function<void(const model::RoutingProbe&, const eval::Likelihood&)>& result,
                               const eval::Advance& progress);

}  // namespace birkhoff::lab
