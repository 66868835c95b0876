// What the experts of a model do: their loads by domain of text, the tokens they are chosen for, and how much their
// choice says about the domain.
#pragma once
#include <string>
#include <vector>

#include "eval/windows.h"
#include "lab/experts/expert_information.h"

namespace birkhoff::lab {

struct Domain {
  std::string name;
  std::vector<std::string> paths;  // files or folders
};
// NAME=PATH arguments; a name may come again with another path. Throws Error (usage): no name, no path, fewer than two
// names.
std::vector<Domain> parse_domains(const std::vector<std::string>& arguments);

struct SpecialisationOptions {
  int64_t seq_len = 0;         // 0: as trained
  bool validation = false;     // only the last 5 % of each path
  int64_t unit_tokens = 4096;  // a document of more is shuffled in parts: of the first whole windows that reach this
  int64_t shuffles = 200;
  uint64_t seed = 0;
  int64_t telling = 6;     // tokens listed for an expert
  int64_t min_count = 20;  // choices of an expert by a token for it to be listed
};

struct TellingToken {
  int32_t id = 0;
  double bits = 0;    // log2(p(token | expert) / p(token)), domains weighted equally
  int64_t count = 0;  // choices, as they are
};
struct LayerSpecialisation {
  int64_t layer = 0;    // of the model
  bool hashed = false;  // a table chooses by token, nothing is learnt
  double bits = 0;      // mutual_information of (expert, domain)
  ShuffledInformation shuffled;
  std::vector<std::vector<double>> load;  // [domain][expert] share of the domain's choices times experts: 1 is even
  std::vector<std::vector<TellingToken>> telling;  // [expert] most bits first
  double excess() const { return bits - shuffled.mean; }
};
struct DomainSize {
  std::string name;
  int64_t tokens = 0, documents = 0, units = 0;
};
struct Specialisation {
  int64_t experts = 0, active = 0;
  std::vector<DomainSize> domains;
  std::vector<LayerSpecialisation> layers;  // those with experts
};

// Runs the model over the windows (eval::windows) of every path; every token of a window counts, the last of a document
// too. Deterministic by options.seed. progress: windows done, of all. Throws Error: a model without experts,
// conversations, data as eval::windows.
Specialisation specialisation(const infer::Engine& engine, const std::vector<Domain>& domains,
                              const SpecialisationOptions& options, const eval::Advance& progress = {});

}  // namespace birkhoff::lab
