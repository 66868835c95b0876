#include "model/lora.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "core/error.h"
#include "core/nearest.h"
#include "core/rng.h"
#include "model/config/model_type.h"

namespace birkhoff::model {
namespace {

constexpr const char* kExperts = "experts";
constexpr size_t kSuffix = std::char_traits<char>::length(".weight");

// A module, the rows of the Linear that are its.
struct Place {
  std::string module;
  int64_t first_row, rows;
};

// f(Linear&, Place) for every module that may have an adapter, in the order of for_each_linear.
template <class F>
void for_each_place(const ModelConfig& c, Weights& w, F&& f) {
  w.for_each_linear([&](const std::string& prefix, layers::Linear& l) {
    const int64_t block = types::block_of(prefix);
    if (block < 0 || block >= c.num_hidden_layers) return;
    int64_t row = 0;
    for (const layers::Part& part : l.parts) {
      const bool matrix = part.role == layers::Role::matrix || part.role == layers::Role::output_projection;
      if (matrix) f(l, Place{prefix + std::string(part.name), row, part.rows});
      row += part.rows;
    }
  });
}

std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }

std::vector<std::string> in_model_order(const ModelConfig& c, const std::set<std::string>& modules) {
  Weights w(c);
  std::vector<std::string> out;
  for (const ParameterInfo& p : list_parameters(w)) {
    const std::string module = p.name.substr(0, p.name.size() - std::min(kSuffix, p.name.size()));
    if (modules.count(module)) out.push_back(module);
  }
  return out;
}

}  // namespace

bool is_routed_expert(const std::string& module) { return module.find(".experts.") != std::string::npos; }

std::vector<std::string> lora_candidates(const ModelConfig& c) {
  std::set<std::string> names;
  Weights w(c);
  for_each_place(c, w, [&](layers::Linear&, const Place& p) { names.insert(p.module); });
  return in_model_order(c, names);
}

std::vector<std::string> lora_modules(const ModelConfig& c, const std::string& targets) {
  const std::vector<std::string> candidates = lora_candidates(c);
  std::vector<std::string> out;
  if (targets.empty()) {
    std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(out),
                 [](const std::string& m) { return !is_routed_expert(m) && m.find(".indexer.") == std::string::npos; });
    return out;
  }
  std::set<std::string> known, wanted;
  for (const std::string& m : candidates) known.insert(is_routed_expert(m) ? kExperts : last_part(m));
  std::istringstream words(targets);
  for (std::string t; std::getline(words, t, ',');) {
    t.erase(std::remove(t.begin(), t.end(), ' '), t.end());
    if (!known.count(t)) {
      const std::string near = nearest(t, {known.begin(), known.end()});
      std::string all;
      for (const std::string& k : known) all += (all.empty() ? "" : ", ") + k;
      throw Error("settings",
                  "lora.targets: the model has no module \"" + t + "\"" +
                      (near.empty() ? "" : "; did you mean \"" + near + "\"?"),
                  "it has " + all);
    }
    wanted.insert(t);
  }
  std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(out),
               [&](const std::string& m) { return wanted.count(is_routed_expert(m) ? kExperts : last_part(m)) > 0; });
  return out;
}

void add_adapters(const ModelConfig& c, const LoraSpec& spec, Weights& w) {
  std::set<std::string> wanted(spec.modules.begin(), spec.modules.end());
  for_each_place(c, w, [&](layers::Linear& l, const Place& p) {
    if (!wanted.erase(p.module)) return;
    layers::Adapter a;
    a.first_row = p.first_row;
    a.a = Mat(nullptr, DType::f32, spec.rank, l.in());
    a.b = Mat(nullptr, DType::f32, p.rows, spec.rank);
    l.adapters.push_back(a);
  });
  if (!wanted.empty()) {
    const std::string near = nearest(*wanted.begin(), lora_candidates(c));
    throw Error("lora",
                "the model has no linear layer " + *wanted.begin() + (near.empty() ? "" : "; the nearest is " + near),
                "is the adapter one of this model?");
  }
  for (const BlockWeights& b : w.blocks) {
    const auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn);
    if (!moe) continue;
    for (const auto& e : moe->experts)
      if (e.gate_up.adapters.size() != moe->experts[0].gate_up.adapters.size() ||
          e.down.adapters.size() != moe->experts[0].down.adapters.size())
        throw Error("lora", "some experts of a layer have adapters and others have none",
                    "adapters of experts come for all experts of a layer");
  }
}

std::vector<ParameterInfo> list_adapters(const ModelConfig& c, const LoraSpec& spec, Weights& w) {
  std::vector<ParameterInfo> out;
  if (spec.empty()) return out;
  int64_t offset = 0;
  const auto add = [&](const std::string& name, const Mat& m) {
    out.push_back({name, layers::Role::matrix, offset, m.rows, m.cols});
    offset += m.size();
  };
  const std::set<std::string> wanted(spec.modules.begin(), spec.modules.end());
  for_each_place(c, w, [&](layers::Linear& l, const Place& p) {
    if (!wanted.count(p.module)) return;
    const auto a = std::find_if(l.adapters.begin(), l.adapters.end(),
                                [&](const layers::Adapter& one) { return one.first_row == p.first_row; });
    BK_CHECK(a != l.adapters.end());
    add(p.module + ".lora_A.weight", a->a);
    add(p.module + ".lora_B.weight", a->b);
  });
  return out;
}

void initialise_adapters(const std::vector<ParameterInfo>& list, float* block, uint64_t seed) {
  for (const ParameterInfo& p : list) {
    const bool is_a = p.name.size() > 14 && p.name.compare(p.name.size() - 14, 14, ".lora_A.weight") == 0;
    const Rng rng(seed, name_key(p.name));
    const double bound = 1 / std::sqrt(static_cast<double>(p.cols));
    for (int64_t i = 0; i < p.size(); ++i)
      block[p.offset + i] = is_a ? static_cast<float>((2 * rng.uniform(static_cast<uint64_t>(i)) - 1) * bound) : 0.f;
  }
}

}  // namespace birkhoff::model
