#include "lab/experts/expert_probe.h"

#include <algorithm>
#include <cstdio>

namespace birkhoff::lab {

std::vector<model::RoutingProbe> probe_list(const std::vector<int64_t>& disabled, bool replace_shared) {
  std::vector<model::RoutingProbe> list(1);
  for (const int64_t r : disabled)
    if (std::none_of(list.begin(), list.end(), [&](const model::RoutingProbe& p) { return p.masked == r; }))
      list.push_back({r, false});
  if (replace_shared) list.push_back({0, true});
  return list;
}

model::ExpertLayers run_probes(const std::string& directory, infer::EngineOptions options, const ProbeData& data,
                               const std::vector<model::RoutingProbe>& probes,
                               const std::function<void(const model::RoutingProbe&, const eval::Likelihood&)>& result,
                               const eval::Advance& progress) {
  model::ExpertLayers layers;
  options.probe = {};
  {
    const infer::Engine plain(directory, options);
    if (!plain.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", plain.note().c_str());
    layers = model::expert_layers(plain.model());
    for (const model::RoutingProbe& p : probes) model::check_routing_probe(plain.model(), p);
  }
  const auto all = static_cast<int64_t>(probes.size());
  for (int64_t i = 0; i < all; ++i) {
    options.probe = probes[static_cast<size_t>(i)];
    const infer::Engine engine(directory, options);
    const auto advance = [&](int64_t done, int64_t windows) { progress(i * windows + done, all * windows); };
    result(options.probe, eval::window_likelihood(engine, data.paths, data.seq_len, data.validation, advance));
  }
  return layers;
}

}  // namespace birkhoff::lab
