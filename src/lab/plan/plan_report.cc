#include "lab/plan/plan_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace birkhoff::lab {
namespace {

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...) {
  char line[400];
  va_list values;
  va_start(values, format);
  std::vsnprintf(line, sizeof line, format, values);
  va_end(values);
  return line;
}

// 1.31 M, 2.97 B, 39.3 B
std::string count(double n) {
  for (const auto& [size, unit] : {std::pair{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "K"}})
    if (n >= size) return text("%.3g %s", n / size, unit);
  return text("%.0f", n);
}

std::string bytes(double n) { return n < kGib ? text("%.1f MiB", n / (1 << 20)) : text("%.1f GiB", n / kGib); }

std::string duration(double s) {
  for (const auto& [size, unit] :
       {std::pair{365.25 * 86400, "years"}, {86400.0, "days"}, {3600.0, "hours"}, {60.0, "minutes"}})
    if (s >= 1.5 * size) return text("%.1f %s", s / size, unit);
  return s >= 1 ? text("%.1f s", s) : text("%.1f ms", s * 1e3);
}

std::string settings(const SplitPlan& p) {
  return text("%lld sequence%s at a time, recompute=%s", static_cast<long long>(p.part_rows),
              p.part_rows == 1 ? "" : "s", birkhoff::name_of(p.recompute));
}

std::string describe_split(const Plan& plan, const SplitPlan& p) {
  std::string s = text("  %-17s %lld machine%s: ", name_of(p.split).c_str(), static_cast<long long>(p.machines),
                       p.machines == 1 ? "" : "s");
  const double has = plan.cluster.machine.memory_bytes, needs = static_cast<double>(p.memory.total());
  s += p.fits ? "fits, " + bytes(needs) + " of " : "does not fit, needs " + bytes(needs) + " and has ";
  s += bytes(has) + " a machine (" + settings(p) + ")\n";
  const auto part = [&](const char* name, size_t n) {
    s += text("%s %s", name, bytes(static_cast<double>(n)).c_str());
  };
  part("      memory   weights", p.memory.weights);
  part(", gradients", p.memory.gradients);
  part(", moments", p.memory.optimizer);
  part(", activations", p.memory.kept);
  part(", working", p.memory.scratch + p.memory.workers + p.memory.process);
  s += "\n      step     " + duration(p.step_seconds()) + ": " + duration(p.compute_seconds) +
       " forward and backward, " + duration(p.optimizer_seconds) + " optimizer";
  if (p.machines > 1) s += ", " + duration(p.network_seconds) + " network";
  s += "; the whole run " + duration(p.step_seconds() * static_cast<double>(plan.steps)) + "\n";
  if (p.machines > 1) {
    s += "      network  a machine sends " + bytes(p.gradient_bytes) + " of gradients a step";
    if (p.split.experts) s += " and " + bytes(p.token_bytes) + " of tokens to experts and back";
    s += "\n";
  }
  return s;
}

std::string describe_assumptions(const Cluster& c) {
  const Machine& m = c.machine;
  std::string s = text("machine      %d core%s like those of %s: %.0f GFLOP/s in products, %.1f GB/s read, %s\n",
                       m.cores, m.cores == 1 ? "" : "s", m.cpu.empty() ? "the measured machine" : m.cpu.c_str(),
                       m.flops * 1e-9, m.read_bytes * 1e-9, bytes(m.memory_bytes).c_str());
  s += text(
      "assumed      %.1f %% of the products' rate in forward and backward, as in a slice of this model; the optimizer "
      "reads and writes weights, gradients\n"
      "             and moments once; machines share a network of %.3g Gbit/s each way; nothing overlaps; tokens "
      "spread evenly over experts\n",
      m.efficiency * 100, c.network_bytes * 8e-9);
  return s;
}

nlohmann::json to_json(const Plan& plan, const SplitPlan& p) {
  const model::MemoryPlan& m = p.memory;
  return {{"split", name_of(p.split)},
          {"machines", p.machines},
          {"fits", p.fits},
          {"sequences", {{"per_machine", p.rows}, {"at_once", p.part_rows}}},
          {"recompute", birkhoff::name_of(p.recompute)},
          {"memory_bytes",
           {{"weights", m.weights},
            {"gradients", m.gradients},
            {"optimizer", m.optimizer},
            {"kept", m.kept},
            {"scratch", m.scratch},
            {"workers", m.workers},
            {"process", m.process},
            {"total", m.total()}}},
          {"sent_bytes_per_step", {{"gradients", p.gradient_bytes}, {"tokens", p.token_bytes}}},
          {"step_s",
           {{"compute", p.compute_seconds},
            {"optimizer", p.optimizer_seconds},
            {"network", p.network_seconds},
            {"total", p.step_seconds()}}},
          {"run_s", p.step_seconds() * static_cast<double>(plan.steps)}};
}

}  // namespace

std::string describe(const Plan& p) {
  std::string s = "model        " + count(static_cast<double>(p.total_parameters)) + " parameters, " +
                  count(static_cast<double>(p.active_parameters)) + " active a token; " + count(p.flops_per_token) +
                  " floating-point operations a token of training\n";
  s += "run          " + count(static_cast<double>(p.tokens)) + " tokens are " + std::to_string(p.steps) +
       " steps of " + std::to_string(p.tokens_per_step) + "\n";
  s += "checkpoint   " + bytes(p.checkpoint_bytes) + " with moments, " + std::to_string(p.checkpoints_kept) +
       " kept: " + bytes(p.checkpoint_bytes * static_cast<double>(p.checkpoints_kept)) + " of disk\n";
  s += describe_assumptions(p.cluster);
  s += p.cluster.machines == 1 ? "\none machine\n"
                               : text("\n%lld machines\n", static_cast<long long>(p.cluster.machines));
  for (const SplitPlan& split : p.splits) s += describe_split(p, split);
  const bool enough = std::any_of(p.splits.begin(), p.splits.end(), [](const SplitPlan& x) { return x.fits; });
  if (p.cluster.machines == 1 && enough) return s;
  s += "\nthe fewest machines that hold it\n";
  for (const SplitPlan& split : p.smallest) s += describe_split(p, split);
  for (const SplitPlan& x : p.never)
    s += text("  %-17s no number of machines: on %lld, the most it can use, each still needs %s\n",
              name_of(x.split).c_str(), static_cast<long long>(x.machines),
              bytes(static_cast<double>(x.memory.total())).c_str());
  return s;
}

nlohmann::json to_json(const Plan& p) {
  const auto list = [&](const std::vector<SplitPlan>& splits) {
    nlohmann::json all = nlohmann::json::array();
    for (const SplitPlan& s : splits) all.push_back(to_json(p, s));
    return all;
  };
  return {{"tokens", p.tokens},
          {"tokens_per_step", p.tokens_per_step},
          {"steps", p.steps},
          {"parameters", {{"total", p.total_parameters}, {"active", p.active_parameters}}},
          {"flops_per_token", p.flops_per_token},
          {"checkpoint", {{"bytes", p.checkpoint_bytes}, {"kept", p.checkpoints_kept}}},
          {"machine", to_json(p.cluster.machine)},
          {"network_gbits", p.cluster.network_bytes * 8e-9},
          {"splits", list(p.splits)},
          {"smallest", list(p.smallest)},
          {"never", list(p.never)}};
}

}  // namespace birkhoff::lab
