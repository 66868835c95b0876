// Trained experts taken away, to see what they were worth: the two probes of DeepSeekMoE (arXiv 2401.06066,
// section 4.5). A setting of the layers of an opened model, for inference; the forward pass is the usual one.
#pragma once
#include <cstdint>
#include <vector>

#include "model/model.h"

namespace birkhoff::model {

struct RoutingProbe {
  int64_t masked = 0;  // R: of every token its R most probable routed experts (ops::RouterRule::masked)
  // All n shared experts of a layer, for n more routed ones (K + n): the cost of a token stays.
  bool replace_shared = false;
  bool on() const { return masked != 0 || replace_shared; }
};

// The layers of the stack that route, by number; hashed: those whose experts a table gives by token. A probe leaves
// those as they are: their choice has no probabilities, and the table no further column.
struct ExpertLayers {
  std::vector<int64_t> routed, hashed;
};
ExpertLayers expert_layers(const Model& m);

// Throws Error: no layer that routes, no shared experts to replace, more experts disabled and chosen than there are (in
// the groups a token may use).
void check_routing_probe(const Model& m, const RoutingProbe& p);
// Sets it in every layer that routes. Once, on a model without one.
void set_routing_probe(Model& m, const RoutingProbe& p);

}  // namespace birkhoff::model
