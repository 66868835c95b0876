#include "lab/experts/expert_specialisation.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/error.h"
#include "data/chat_corpus.h"
#include "model/routing_probe.h"

namespace birkhoff::lab {
namespace {

[[noreturn]] void bad_domains(const std::string& what, const std::string& hint, ExitCode code = ExitCode::input) {
  throw Error("experts", what, hint, code);
}

// Choices of one expert by one token: weighed so that domains are equal, and as they are.
struct Tally {
  double weight = 0;
  int64_t count = 0;
};

// Counts of all windows so far.
class Counter {
 public:
  Counter(const model::Model& m, int64_t unit_tokens)
      : unit_tokens_(unit_tokens), token_weight_(static_cast<size_t>(m.config.vocab_size)) {
    const model::ExpertLayers in = model::expert_layers(m);
    for (const auto* list : {&in.hashed, &in.routed}) layers_.insert(layers_.end(), list->begin(), list->end());
    std::sort(layers_.begin(), layers_.end());
    loads_.layers = static_cast<int64_t>(layers_.size());
    loads_.experts = m.config.n_routed_experts;
    pairs_.resize(layers_.size());
  }

  // Windows of another path follow; each of its domain's tokens weighs `weight`, together 1 / domains.
  void begin_path(int64_t domain, double weight) {
    domain_ = domain;
    weight_ = weight;
    continues_ = false;
    loads_.domains = std::max(loads_.domains, domain + 1);
    documents_.resize(static_cast<size_t>(loads_.domains));
  }
  void add(const data::Batch& b, const model::Tape& tape) {
    for (size_t i = 0; i < b.segment_start.size(); ++i) {
      const int64_t first = b.segment_start[i],
                    end = i + 1 < b.segment_start.size() ? b.segment_start[i + 1] : static_cast<int64_t>(b.ids.size());
      const bool goes_on = i == 0 && continues_;
      if (!goes_on) ++documents_[static_cast<size_t>(domain_)];
      if (!goes_on || in_unit_ >= unit_tokens_) begin_unit();
      for (int64_t t = first; t < end; ++t) add_token(t, b.ids[static_cast<size_t>(t)], tape);
      in_unit_ += end - first;
    }
    continues_ = b.labels.back() != kIgnoreLabel;  // the next token of the document is in the next window
  }

  const std::vector<int64_t>& layers() const { return layers_; }
  const UnitLoads& loads() const { return loads_; }
  int64_t documents(size_t domain) const { return documents_[domain]; }
  // The tokens of a layer's experts with the most bits.
  std::vector<std::vector<TellingToken>> telling(size_t layer, int64_t most, int64_t min_count) const;

 private:
  void begin_unit() {
    loads_.units.push_back({domain_, std::vector<int32_t>(static_cast<size_t>(loads_.layers * loads_.experts))});
    in_unit_ = 0;
  }
  void add_token(int64_t t, int32_t id, const model::Tape& tape) {
    token_weight_[static_cast<size_t>(id)] += weight_;
    for (size_t l = 0; l < layers_.size(); ++l) {
      const ops::Routing& r = std::get<layers::Moe::Saved>(tape.layers[static_cast<size_t>(layers_[l])].ffn).routing;
      const int64_t active = r.weights.cols;
      for (const int32_t e : r.index.subspan(static_cast<size_t>(t * active), static_cast<size_t>(active))) {
        ++loads_.units.back().loads[l * static_cast<size_t>(loads_.experts) + static_cast<size_t>(e)];
        Tally& pair = pairs_[l][key(e, id)];
        pair.weight += weight_;
        ++pair.count;
      }
    }
  }
  static uint64_t key(int32_t expert, int32_t id) {
    return static_cast<uint64_t>(expert) << 32 | static_cast<uint32_t>(id);
  }

  int64_t unit_tokens_, domain_ = 0, in_unit_ = 0;
  double weight_ = 0;
  bool continues_ = false;
  std::vector<int64_t> layers_, documents_;
  UnitLoads loads_;
  std::vector<double> token_weight_;                        // [vocab] p(token)
  std::vector<std::unordered_map<uint64_t, Tally>> pairs_;  // [layer] (expert, token)
};

std::vector<std::vector<TellingToken>> Counter::telling(size_t layer, int64_t most, int64_t min_count) const {
  std::vector<double> of_expert(static_cast<size_t>(loads_.experts));
  for (const auto& [k, pair] : pairs_[layer]) of_expert[k >> 32] += pair.weight;
  std::vector<std::vector<TellingToken>> lists(of_expert.size());
  for (const auto& [k, pair] : pairs_[layer]) {
    const auto id = static_cast<int32_t>(k & 0xffffffff);
    if (pair.count >= min_count)
      lists[k >> 32].push_back(
          {id, std::log2(pair.weight / of_expert[k >> 32] / token_weight_[static_cast<size_t>(id)]), pair.count});
  }
  for (auto& list : lists) {
    std::sort(list.begin(), list.end(), [](const TellingToken& a, const TellingToken& b) {
      return a.bits != b.bits ? a.bits > b.bits : a.id < b.id;
    });
    if (static_cast<int64_t>(list.size()) > most) list.resize(static_cast<size_t>(most));
  }
  return lists;
}

// [domain][expert] shares of one layer, times experts.
std::vector<std::vector<double>> relative_loads(const UnitLoads& loads, int64_t layer) {
  std::vector<std::vector<double>> out(static_cast<size_t>(loads.domains),
                                       std::vector<double>(static_cast<size_t>(loads.experts)));
  for (const Unit& u : loads.units)
    for (int64_t e = 0; e < loads.experts; ++e)
      out[static_cast<size_t>(u.domain)][static_cast<size_t>(e)] +=
          u.loads[static_cast<size_t>(layer * loads.experts + e)];
  for (auto& row : out) {
    double sum = 0;
    for (const double v : row) sum += v;
    for (double& v : row) v *= static_cast<double>(loads.experts) / sum;
  }
  return out;
}

Specialisation summary(const Counter& counter, const std::vector<Domain>& domains, const std::vector<int64_t>& tokens,
                       const model::Model& m, const SpecialisationOptions& o) {
  const UnitLoads& loads = counter.loads();
  Specialisation s{m.config.n_routed_experts, m.config.num_experts_per_tok, {}, {}};
  for (size_t d = 0; d < domains.size(); ++d)
    s.domains.push_back({domains[d].name, tokens[d], counter.documents(d), 0});
  for (const Unit& u : loads.units) ++s.domains[static_cast<size_t>(u.domain)].units;
  const std::vector<double> bits = information(loads);
  const std::vector<ShuffledInformation> shuffled = shuffled_information(loads, o.shuffles, o.seed);
  const std::vector<int64_t> hashed = model::expert_layers(m).hashed;
  for (size_t l = 0; l < bits.size(); ++l) {
    const int64_t layer = counter.layers()[l];
    s.layers.push_back({layer, std::find(hashed.begin(), hashed.end(), layer) != hashed.end(), bits[l], shuffled[l],
                        relative_loads(loads, static_cast<int64_t>(l)), counter.telling(l, o.telling, o.min_count)});
  }
  return s;
}

}  // namespace

std::vector<Domain> parse_domains(const std::vector<std::string>& arguments) {
  std::vector<Domain> domains;
  for (const std::string& a : arguments) {
    const size_t at = a.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == a.size())
      bad_domains("--data " + a + ": expected NAME=PATH",
                  "name the domain of the text, as in --data code=src.txt; plain paths are for --disable-top and "
                  "--replace-shared",
                  ExitCode::usage);
    const std::string name = a.substr(0, at);
    auto d = std::find_if(domains.begin(), domains.end(), [&](const Domain& known) { return known.name == name; });
    if (d == domains.end()) d = domains.insert(d, {name, {}});
    d->paths.push_back(a.substr(at + 1));
  }
  if (domains.size() < 2)
    bad_domains("one domain, \"" + (domains.empty() ? "" : domains[0].name) + "\"",
                "give --data NAME=PATH of two domains or more", ExitCode::usage);
  return domains;
}

Specialisation specialisation(const infer::Engine& engine, const std::vector<Domain>& domains,
                              const SpecialisationOptions& o, const eval::Advance& progress) {
  const model::Model& m = engine.model();
  Counter counter(m, o.unit_tokens);
  if (counter.layers().empty())
    bad_domains("the model has no experts (n_routed_experts " + std::to_string(m.config.n_routed_experts) + ")",
                "name a model with mixture-of-experts layers");
  const infer::TextModel text(engine);
  std::vector<std::vector<std::vector<data::Batch>>> windows(domains.size());  // [domain][path]
  std::vector<int64_t> tokens(domains.size());
  int64_t all = 0, before = 0;
  for (size_t d = 0; d < domains.size(); ++d) {
    for (const std::string& path : domains[d].paths) {
      if (data::are_conversations({path}))
        bad_domains(path + ": holds conversations", "give texts: what experts do is counted over plain documents");
      windows[d].push_back(eval::windows(engine, text, {path}, o.seq_len, o.validation));
      for (const data::Batch& b : windows[d].back()) tokens[d] += static_cast<int64_t>(b.ids.size());
      all += static_cast<int64_t>(windows[d].back().size());
    }
  }
  const auto count = [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena&) {
    if (!exec.dry()) counter.add(b, tape);
  };
  for (size_t d = 0; d < domains.size(); ++d) {
    for (const auto& batches : windows[d]) {
      counter.begin_path(static_cast<int64_t>(d),
                         1 / static_cast<double>(static_cast<int64_t>(domains.size()) * tokens[d]));
      eval::over_windows(engine, batches, model::Tape::Keep::nothing, count, [&](int64_t done, int64_t) {
        if (progress) progress(before + done, all);
      });
      before += static_cast<int64_t>(batches.size());
    }
  }
  return summary(counter, domains, tokens, m, o);
}

}  // namespace birkhoff::lab
