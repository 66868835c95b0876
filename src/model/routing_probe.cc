#include "model/routing_probe.h"

#include <string>

#include "core/error.h"

namespace birkhoff::model {
namespace {

[[noreturn]] void bad_probe(const std::string& what, const std::string& hint) { throw Error("experts", what, hint); }

int64_t chosen(const ModelConfig& c, const RoutingProbe& p) {
  return c.num_experts_per_tok + (p.replace_shared ? c.n_shared_experts : 0);
}

}  // namespace

ExpertLayers expert_layers(const Model& m) {
  ExpertLayers layers;
  for (int64_t l = 0; l < m.config.num_hidden_layers; ++l)
    if (const auto* moe = std::get_if<layers::Moe::Spec>(&m.blocks[static_cast<size_t>(l)].ffn))
      (moe->hash_vocab ? layers.hashed : layers.routed).push_back(l);
  return layers;
}

void check_routing_probe(const Model& m, const RoutingProbe& p) {
  const ModelConfig& c = m.config;
  const ExpertLayers layers = expert_layers(m);
  if (layers.routed.empty()) {
    if (layers.hashed.empty())
      bad_probe("the model has no experts (n_routed_experts " + std::to_string(c.n_routed_experts) + ")",
                "name a model with mixture-of-experts layers");
    bad_probe("all " + std::to_string(layers.hashed.size()) + " expert layers look their experts up by token",
              "a probe needs a layer with a router");
  }
  if (p.masked < 0) bad_probe("cannot disable " + std::to_string(p.masked) + " experts", "give 0 or more");
  if (p.replace_shared && c.n_shared_experts == 0)
    bad_probe("n_shared_experts is 0: there is no shared expert to replace", "leave out --replace-shared");
  const ops::RouterRule& rule = std::get<layers::Moe::Spec>(m.blocks[static_cast<size_t>(layers.routed[0])].ffn).rule;
  const int64_t open = rule.active_groups * (rule.experts / rule.groups), active = chosen(c, p);
  if (p.masked + active <= open) return;
  const std::string among = rule.active_groups == rule.groups
                                ? std::to_string(open) + " experts"
                                : std::to_string(open) + " experts of the " + std::to_string(rule.active_groups) +
                                      " groups (of " + std::to_string(rule.groups) + ") a token may use";
  bad_probe(std::to_string(p.masked) + " experts disabled and " + std::to_string(active) +
                " chosen, but there are only " + among,
            open > active ? "disable at most " + std::to_string(open - active) : "no expert can be disabled");
}

void set_routing_probe(Model& m, const RoutingProbe& p) {
  check_routing_probe(m, p);
  for (BlockSpec& b : m.blocks) {
    auto* moe = std::get_if<layers::Moe::Spec>(&b.ffn);
    if (!moe || moe->hash_vocab) continue;
    moe->rule.masked = p.masked;
    moe->rule.active = chosen(m.config, p);
    if (p.replace_shared) moe->shared_inter = 0;
  }
}

}  // namespace birkhoff::model
