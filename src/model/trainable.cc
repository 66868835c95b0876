#include "model/trainable.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace birkhoff::model {
namespace {

// Length of the longest text that both contain.
size_t common_length(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  size_t best = 0;
  for (const char ch : a) {
    for (size_t j = b.size(); j-- > 0;) {
      row[j + 1] = ch == b[j] ? row[j] + 1 : 0;
      best = std::max(best, row[j + 1]);
    }
  }
  return best;
}

std::string nearest_names(const std::string& pattern, const std::vector<ParameterInfo>& list) {
  constexpr size_t kShown = 3;
  std::vector<std::pair<size_t, std::string>> scored;
  for (const ParameterInfo& p : list) scored.emplace_back(common_length(pattern, p.name), p.name);
  std::stable_sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string text;
  for (size_t i = 0; i < std::min(kShown, scored.size()); ++i) text += (i ? ", " : "") + scored[i].second;
  return text;
}

std::vector<bool> accepted(const TrainingScope& scope, const std::vector<ParameterInfo>& list) {
  std::vector<bool> found;
  for (const ParameterInfo& p : list) found.push_back(scope.is_trained(p.name));
  if (std::none_of(found.begin(), found.end(), [](bool b) { return b; }))
    throw Error("settings", "trainable: \"" + scope.trainable + "\" matches no tensor",
                "the nearest names are " + nearest_names(scope.trainable, list));
  return found;
}

// Tensors that share a Linear have one number. Those of no Linear have numbers of their own; `matrix` tells which are
// products.
struct Groups {
  std::vector<size_t> of;
  std::vector<bool> matrix;
};
Groups group(const Weights& w) {
  Groups g;
  const auto add = [&](size_t tensors, bool matrix) {
    g.of.insert(g.of.end(), tensors, g.matrix.size());
    g.matrix.push_back(matrix);
  };
  Weights::visit(w, "",
                 layers::Overloaded{[&](const std::string&, const layers::Linear& l) { add(l.parts.size(), true); },
                                    [&](const std::string&, const layers::GroupedLinear&) { add(1, true); },
                                    [&](const std::string&, const Mat&, layers::Role) { add(1, false); }});
  return g;
}

// Whether backward leaves the gradient out when it has no memory.
bool may_lack_gradient(layers::Role role, bool matrix) {
  return matrix || role == layers::Role::embedding || role == layers::Role::router_bias ||
         role == layers::Role::expert_table;
}

}  // namespace

const TrainedParameter* TrainableSet::find(const std::string& name) const {
  const auto it = std::find_if(parameters.begin(), parameters.end(),
                               [&](const TrainedParameter& p) { return p.info.name == name; });
  return it == parameters.end() ? nullptr : &*it;
}

TrainableSet choose_trainable(const Model& m, const TrainingScope& scope) {
  std::vector<bool> chosen =
      scope.is_trained ? accepted(scope, m.parameters) : std::vector<bool>(m.parameters.size(), m.lora.empty());
  for (size_t i = 0; i < chosen.size(); ++i)
    if (m.parameters[i].role == layers::Role::expert_table)
      chosen[i] = false;  // a table of whole numbers, part of the architecture
  const Groups groups = group(m.weights);
  std::vector<bool> any(groups.matrix.size());
  for (size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i]) any[groups.of[i]] = true;
  TrainableSet set;
  for (size_t i = 0; i < chosen.size(); ++i)
    set.parameters.push_back({m.parameters[i], m.block ? m.block + m.parameters[i].offset : nullptr, -1, chosen[i]});
  for (const ParameterInfo& p : m.adapters) set.parameters.push_back({p, m.adapter_block + p.offset, -1, true});
  const auto place = [&](TrainedParameter& p) {
    p.state = set.gradient_elements;
    set.gradient_elements += p.info.size();
  };
  for (size_t i = 0; i < set.parameters.size(); ++i)
    if (i >= chosen.size() || any[groups.of[i]]) place(set.parameters[i]);
  set.moment_elements = set.gradient_elements;
  for (size_t i = 0; i < chosen.size(); ++i)
    if (!any[groups.of[i]] && !may_lack_gradient(m.parameters[i].role, groups.matrix[groups.of[i]]))
      place(set.parameters[i]);
  return set;
}

Weights bind_gradients(const Model& m, const TrainableSet& set, float* block) {
  Weights grads(m.config);
  if (!m.lora.empty()) add_adapters(m.config, m.lora, grads);
  size_t i = 0;
  const auto bind_next = [&](Mat& g, size_t tensors) {
    const int64_t state = set.parameters[i].state;
    g.data = state < 0 ? nullptr : block + state;
    int64_t end = state;
    for (; tensors > 0; --tensors, ++i) {  // a product's tensors have gradients together, without a gap, or none has
      BK_CHECK_EQ(set.parameters[i].state, end);
      if (state >= 0) end += set.parameters[i].info.size();
    }
  };
  grads.bind(bind_next);
  for_each_adapter_matrix(grads, [&](Mat& g) { bind_next(g, 1); });
  BK_CHECK_EQ(i, set.parameters.size());
  return grads;
}

void clear_frozen(const TrainableSet& set, float* block) {
  for (const TrainedParameter& p : set.parameters)
    if (!p.trained && p.state >= 0) std::memset(block + p.state, 0, static_cast<size_t>(p.info.size()) * sizeof(float));
}

}  // namespace birkhoff::model
