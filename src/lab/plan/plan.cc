#include "lab/plan/plan.h"

#include <algorithm>

#include "core/error.h"
#include "model/config/inventory.h"
#include "optim/muon.h"
#include "train/train_state.h"

namespace birkhoff::lab {
namespace {

int64_t divided_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Splits from the simplest to the one that divides most.
std::vector<Split> splits_of(const train::RunConfig& c) {
  std::vector<Split> all{{false, false}, {false, true}};
  if (c.model.n_routed_experts) all.insert(all.end(), {{true, false}, {true, true}});
  return all;
}

}  // namespace

std::string name_of(const Split& s) {
  return std::string(s.experts ? "experts" : "data") + (s.moments ? ", moments" : "");
}

Planner::Planner(const train::RunConfig& config, const Cluster& cluster) : config_(config), cluster_(cluster) {
  const train::TrainConfig& t = config_.train;
  Arena memory = Arena::measuring();
  model::Model m(config_.model, t.dtype, t.seq_len, true, memory);
  m.attach_adapters(t.scope(config_.model).lora, true, memory);
  const model::TrainableSet set = model::choose_trainable(m, t.scope(config_.model));
  for (const auto& p : set.parameters) {
    if (p.state < 0) continue;
    const bool expert = p.info.name.find(".experts.") != std::string::npos;
    if (p.trained && train::moved_by_muon(p.info, t)) {
      const double flops = optim::newton_schulz_flops(p.info.rows, p.info.cols);
      muon_flops_ += flops;
      if (expert) expert_muon_flops_ += flops;
    }
    if (!expert) continue;
    expert_.gradients += static_cast<size_t>(p.info.size()) * sizeof(float);
    if (p.state < set.moment_elements) expert_.optimizer += 2 * static_cast<size_t>(p.info.size()) * sizeof(float);
  }
  for (auto& b : m.weights.blocks) {
    auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn);
    if (!moe) continue;
    ++moe_layers_;
    for (auto& e : moe->experts)
      layers::for_each_linear(e, "", [&](const std::string&, const layers::Linear& l) {
        expert_.weights += static_cast<size_t>(l.w.size()) * sizeof(float);
        for (const ops::Packed* p : {&l.forward, &l.backward})
          expert_.weights += static_cast<size_t>(ops::Packed::bytes(p->dtype, p->k, p->n));
      });
  }
  parameter_elements_ = model::parameter_elements(m.parameters);
  moment_elements_ = set.moment_elements;
  gradients_ = static_cast<size_t>(set.gradient_elements) * sizeof(float);
}

int64_t Planner::limit(const Split& split) const {
  return split.experts ? std::min(config_.train.batch_size, config_.model.n_routed_experts) : config_.train.batch_size;
}

const model::MemoryPlan& Planner::memory_of(int64_t rows, model::Recompute recompute) {
  const auto [at, fresh] = memory_.try_emplace({rows, recompute});
  if (fresh) {
    train::RunConfig part = config_;
    part.train.batch_size = rows;
    part.train.grad_accum = 1;
    part.train.recompute = recompute;
    at->second = train::plan_run(part, cluster_.machine.cores);
  }
  return at->second;
}

double Planner::experts_held(const Split& split, int64_t machines) const {
  const int64_t E = config_.model.n_routed_experts;
  return split.experts ? static_cast<double>(divided_up(E, machines)) / static_cast<double>(E) : 1;
}

double Planner::updated(double all, double experts, const Split& split, int64_t machines) const {
  const double owners = split.moments ? static_cast<double>(machines) : 1;
  return split.experts ? (all - experts) / owners + experts * experts_held(split, machines) : all / owners;
}

model::MemoryPlan Planner::divided(model::MemoryPlan p, const Split& split, int64_t machines) const {
  const double elsewhere = 1 - experts_held(split, machines);
  p.weights -= static_cast<size_t>(static_cast<double>(expert_.weights) * elsewhere);
  p.gradients -= static_cast<size_t>(static_cast<double>(expert_.gradients) * elsewhere);
  p.optimizer = static_cast<size_t>(
      updated(static_cast<double>(p.optimizer), static_cast<double>(expert_.optimizer), split, machines));
  return p;
}

bool Planner::holds(const model::MemoryPlan& p) const {
  return static_cast<double>(p.total()) <= cluster_.machine.memory_bytes;
}

void Planner::add_costs(SplitPlan& p) const {
  const train::TrainConfig& t = config_.train;
  const Machine& machine = cluster_.machine;
  const bool again = p.recompute != model::Recompute::none;
  const double forwards = again ? 4.0 / 3.0 : 1.0;  // backward costs two forwards; recomputing adds a third
  p.compute_seconds =
      forwards * model::model_flops(config_.model, p.rows, t.seq_len) / (machine.flops * machine.efficiency);
  p.optimizer_seconds =
      2.0 * static_cast<double>(p.memory.weights + p.memory.gradients + p.memory.optimizer) / machine.read_bytes;
  p.optimizer_seconds +=
      updated(muon_flops_, expert_muon_flops_, p.split, p.machines) / (machine.flops * machine.efficiency);
  const double others = static_cast<double>(p.machines - 1) / static_cast<double>(p.machines);
  const size_t replicated = gradients_ - (p.split.experts ? expert_.gradients : 0);
  p.gradient_bytes = 2.0 * others * static_cast<double>(replicated);
  if (p.split.experts) {
    const double row_bytes = static_cast<double>(config_.model.hidden_size) * (t.dtype == DType::bf16 ? 2.0 : 4.0);
    const double passes = 2.0 * (again ? 3.0 : 2.0);  // there and back: forward, again when recomputed, backward
    p.token_bytes = others * passes * row_bytes *
                    static_cast<double>(config_.model.num_experts_per_tok * p.rows * t.seq_len * moe_layers_);
  }
  p.network_seconds = (p.gradient_bytes + p.token_bytes) / cluster_.network_bytes;
}

SplitPlan Planner::on(const Split& split, int64_t machines) {
  const train::TrainConfig& t = config_.train;
  SplitPlan p;
  p.split = split;
  p.machines = machines;
  p.rows = divided_up(t.batch_size, machines);
  const std::pair<int64_t, model::Recompute> candidates[] = {
      {divided_up(p.rows, t.grad_accum), t.recompute}, {1, t.recompute}, {1, model::Recompute::layer}};
  for (const auto& [rows, recompute] : candidates) {
    // A step of thousands of sequences at once is not worth a dry run, which has an end: one of them says enough.
    if (rows > 1 &&
        static_cast<double>(rows) * static_cast<double>(memory_of(1, recompute).kept) > cluster_.machine.memory_bytes)
      continue;
    p.part_rows = rows;
    p.recompute = recompute;
    p.memory = divided(memory_of(rows, recompute), split, machines);
    p.fits = holds(p.memory);
    if (p.fits) break;
  }
  add_costs(p);
  return p;
}

int64_t Planner::fewest_machines(const Split& split) {
  const auto fits = [&](int64_t m) {
    return holds(divided(memory_of(1, config_.train.recompute), split, m)) ||
           holds(divided(memory_of(1, model::Recompute::layer), split, m));
  };
  int64_t low = 1, high = limit(split);  // one sequence at a time: what a machine holds never grows with their number
  if (!fits(high)) return 0;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (fits(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

Plan Planner::plan(int64_t tokens) {
  const train::TrainConfig& t = config_.train;
  if (cluster_.machines > t.batch_size)
    throw Error("plan",
                "machines: " + std::to_string(cluster_.machines) +
                    " are more than the sequences of a step, batch_size " + std::to_string(t.batch_size),
                "each machine needs one; raise batch_size");
  const model::Inventory inventory = model::take_inventory(config_.model);
  Plan plan;
  plan.tokens = tokens;
  plan.tokens_per_step = t.batch_size * t.seq_len;
  plan.steps = divided_up(tokens, plan.tokens_per_step);
  plan.total_parameters = inventory.total;
  plan.active_parameters = inventory.active;
  plan.flops_per_token = model::model_flops(config_.model, 1, t.seq_len) / static_cast<double>(t.seq_len);
  plan.checkpoint_bytes = sizeof(float) * static_cast<double>(parameter_elements_ + 2 * moment_elements_);
  plan.checkpoints_kept = t.keep;
  plan.cluster = cluster_;
  for (const Split& s : splits_of(config_)) {
    if (cluster_.machines <= limit(s) && (cluster_.machines > 1 || !s.divides()))
      plan.splits.push_back(on(s, cluster_.machines));
    const int64_t m = fewest_machines(s);
    if (m > 1 || (m == 1 && !s.divides())) plan.smallest.push_back(on(s, m));  // one machine divides nothing
    if (m == 0) plan.never.push_back(on(s, limit(s)));
  }
  return plan;
}

}  // namespace birkhoff::lab
