#include "lab/plan/plan.h"

#include <cstdio>
#include <filesystem>
#include <optional>

#include "apps/flags.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "lab/plan/plan_report.h"
#include "model/config/presets.h"

namespace birkhoff::apps {
namespace {

struct PlanFlags {
  std::string what, measured;
  std::vector<std::string> set;
  double tokens = 0, gbits = 10;
  std::optional<double> memory_gib;
  int64_t machines = 1;
  int cores = 0;
  bool json = false;
};

// A file of settings, or the name of a preset.
nlohmann::json settings_of(const std::string& what) {
  namespace fs = std::filesystem;
  if (io::is_directory(what))
    throw Error("plan", what + ": is a directory", "give its config.json, or a preset", ExitCode::usage);
  const bool path = what.find('/') != std::string::npos || fs::path(what).extension() == ".json";
  if (!io::exists(what) && !path) return nlohmann::json::parse(model::find_preset(what).json);
  const nlohmann::json file = io::read_json(what);
  if (!file.is_object()) throw Error("plan", what + ": not a JSON object");
  return file;
}

lab::Machine machine_of(const PlanFlags& f, const train::RunConfig& config, int threads) {
  if (f.measured.empty()) {
    std::fprintf(stderr, "birkhoff: measuring this machine, ten seconds or so\n");
    return lab::measure_machine(config, threads);
  }
  const nlohmann::json file = io::read_json(f.measured);
  return lab::machine_from_json(file.is_object() && file.contains("measured") ? file["measured"] : nlohmann::json(),
                                f.measured);
}

// Peak and bandwidth belong to a core here; memory to the machine.
lab::Machine with(lab::Machine m, int cores, std::optional<double> memory_gib) {
  if (memory_gib) m.memory_bytes = *memory_gib * (1 << 30);
  if (cores > 0) {
    m.flops *= static_cast<double>(cores) / m.cores;
    m.read_bytes *= static_cast<double>(cores) / m.cores;
    m.cores = cores;
  }
  return m;
}

int plan(const PlanFlags& f, const Program& p) {
  const train::RunConfig config = train::make_run_config(settings_of(f.what), f.set);
  const lab::Machine measured = machine_of(f, config, p.thread_count());
  lab::Cluster cluster;
  cluster.machine = with(measured, f.cores, f.memory_gib);
  cluster.machines = f.machines;
  cluster.network_bytes = f.gbits * 1e9 / 8;
  const lab::Plan result = lab::Planner(config, cluster).plan(static_cast<int64_t>(f.tokens));
  if (!f.json) {
    std::printf("%s", lab::describe(result).c_str());
    return 0;
  }
  nlohmann::json out = lab::to_json(result);
  out["measured"] = lab::to_json(measured);
  std::printf("%s\n", out.dump(2).c_str());
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Program& p) {
  auto f = std::make_shared<PlanFlags>();
  CLI::App* verb = app.add_subcommand(
      "plan", "Memory, time and traffic of a training run on paper, on one or more machines like this one");
  verb->add_option("what", f->what, "preset, or JSON file of settings")->required();
  verb->add_option("--tokens", f->tokens, "tokens to train on, e.g. 39.3e9")->check(real_number(1, 1e18))->required();
  verb->add_option("--set", f->set, "key=value, over the settings; repeatable")->allow_extra_args(false);
  verb->add_option("--machines", f->machines, "machines that share the run")
      ->check(whole_number(1, 1'000'000))
      ->capture_default_str();
  verb->add_option("--cores", f->cores, "cores of a machine, each like those of this one; default: its own number")
      ->check(whole_number(1, 100'000));
  verb->add_option("--memory", f->memory_gib, "GiB of a machine; default: as much as this one")
      ->check(real_number(1e-3, 1e9));
  verb->add_option("--bandwidth", f->gbits, "Gbit/s that a machine sends and receives")
      ->check(real_number(1e-3, 1e9))
      ->capture_default_str();
  verb->add_option("--measured", f->measured,
                   "take the figures of a machine from what plan --json wrote, instead of measuring");
  verb->add_option("--threads", p.threads, "that measure; default: all cores");
  verb->add_flag("--json", f->json, "JSON instead of text");
  verb->callback([f, &p] { p.run = [f, &p] { return plan(*f, p); }; });
}

}  // namespace birkhoff::apps
