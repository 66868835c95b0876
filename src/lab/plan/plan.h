// A training run on paper: memory, time, checkpoints and traffic of a model that is split over machines. The engine
// itself trains on one machine; splits are arithmetic over its memory plan and the machine's measured figures. Every
// formula is in docs/plan.md.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lab/plan/machine.h"
#include "model/memory_plan.h"

namespace birkhoff::lab {

// Equal machines and the network between them. One machine has no network.
struct Cluster {
  Machine machine;
  int64_t machines = 1;
  double network_bytes = 1.25e9;  // a machine sends so much a second while it receives as much; 10 Gbit/s
};

// How M machines share the work. All divide the sequences of a step. What is not divided is held by every machine.
struct Split {
  bool experts = false;  // each machine holds ceil(E / M) routed experts of every layer, and tokens travel to them
  bool moments = false;  // the optimizer's moments of what is replicated are divided as well (ZeRO-1)
  bool divides() const { return experts || moments; }
};
std::string name_of(const Split& s);  // "data", "data, moments", "experts", "experts, moments"

// Bytes of routed experts within the parts of a memory plan, prediction modules included.
struct ExpertBytes {
  size_t weights = 0, gradients = 0, optimizer = 0;
};

struct SplitPlan {
  Split split;
  int64_t machines = 1;
  int64_t rows = 0, part_rows = 0;  // sequences of a step on the busiest machine, and at once
  model::Recompute recompute = model::Recompute::none;
  model::MemoryPlan memory;  // of one machine
  bool fits = false;
  double compute_seconds = 0, optimizer_seconds = 0, network_seconds = 0;  // of a step, one after the other
  double gradient_bytes = 0, token_bytes = 0;                              // sent by one machine in a step
  double step_seconds() const { return compute_seconds + optimizer_seconds + network_seconds; }
};

struct Plan {
  int64_t tokens = 0, tokens_per_step = 0, steps = 0;
  int64_t total_parameters = 0, active_parameters = 0;  // model::Inventory
  double flops_per_token = 0;                           // training, model::model_flops
  double checkpoint_bytes = 0;                          // weights and moments in fp32
  int64_t checkpoints_kept = 0;
  Cluster cluster;
  std::vector<SplitPlan> splits;    // on cluster.machines machines
  std::vector<SplitPlan> smallest;  // of each split that fits on some number of machines, the fewest
  std::vector<SplitPlan> never;     // of each split that does not, the most machines it can use
};

// Plans memory once for every (sequences at once, recompute policy) it looks at; the rest is arithmetic.
class Planner {
 public:
  Planner(const train::RunConfig& config, const Cluster& cluster);

  // Throws Error when there are more machines than sequences in a step.
  Plan plan(int64_t tokens);
  // On any number of machines up to limit(split). Of the settings as given, one sequence at a time, and that with
  // recompute=layer, the first that fits; the last when none does.
  SplitPlan on(const Split& split, int64_t machines);
  // The smallest number on which on() fits, 0 when there is none up to the limit.
  int64_t fewest_machines(const Split& split);
  // Each machine needs a sequence, and with divided experts an expert.
  int64_t limit(const Split& split) const;
  const ExpertBytes& expert_bytes() const { return expert_; }

 private:
  const model::MemoryPlan& memory_of(int64_t rows, model::Recompute recompute);
  double experts_held(const Split& split, int64_t machines) const;  // as part of all
  // What the busiest machine has of something that goes with a parameter's update, all of it and that of routed experts
  // given.
  double updated(double all, double experts, const Split& split, int64_t machines) const;
  model::MemoryPlan divided(model::MemoryPlan whole, const Split& split, int64_t machines) const;
  bool holds(const model::MemoryPlan& p) const;
  void add_costs(SplitPlan& p) const;
  train::RunConfig config_;
  Cluster cluster_;
  ExpertBytes expert_;
  size_t gradients_ = 0;                           // bytes of all of them
  double muon_flops_ = 0, expert_muon_flops_ = 0;  // of a step: of all parameters, and of routed experts among them
  int64_t parameter_elements_ = 0, moment_elements_ = 0, moe_layers_ = 0;
  std::map<std::pair<int64_t, model::Recompute>, model::MemoryPlan> memory_;
};

}  // namespace birkhoff::lab
